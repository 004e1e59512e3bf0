"""An ImageNet copy in any usual layout, read at random and bit by bit.

Training images: `train/<wnid>/*.JPEG`, `images/<wnid>/`, `<wnid>/` itself,
Kaggle's `ILSVRC/Data/CLS-LOC/train/<wnid>/`, or `ILSVRC2012_img_train.tar`, a
tar of one tar per class, which is never unpacked. Validation images: a folder
per wnid, or a flat folder or tar with the official labels.

An image's name is '<wnid>/<file>', whatever the layout.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import io
import os
import pathlib
import re
from typing import Protocol

from PIL import Image

from pinpp_jax.data import files
from pinpp_jax.data.imagenet import tars, val_labels
from pinpp_jax.errors import UserError

_WNID = re.compile(r'n\d{8}')
_SUFFIXES = ('.jpeg', '.jpg', '.png')
_ROOTS = ('', 'ILSVRC', 'imagenet', 'imagenet-1k', 'ILSVRC2012')
_TRAIN = ('train', 'Data/CLS-LOC/train', 'images', 'img_train', '')
_VALIDATION = ('val', 'validation', 'Data/CLS-LOC/val', 'img_val')
_TRAIN_TAR = 'ILSVRC2012_img_train.tar'
_VALIDATION_TAR = 'ILSVRC2012_img_val.tar'


class Images(Protocol):
  """One split of a copy in one layout; wnids are sorted."""

  @property
  def wnids(self) -> Sequence[str]:
    """The classes, sorted."""
    ...

  def files(self, wnid: str) -> Sequence[str]:
    """Returns the file names of a class, without folder, sorted."""
    ...

  def read(self, wnid: str, file: str) -> bytes | None:
    """Returns a file's bytes, or None when there is no such file."""
    ...


class Folders:
  """A folder per class."""

  def __init__(self, root: pathlib.Path, wnids: Sequence[str]):
    self.root = root
    self.wnids = tuple(wnids)

  def files(self, wnid: str) -> Sequence[str]:
    """Returns the images in a class's folder."""
    return _image_files(self.root / wnid)

  def read(self, wnid: str, file: str) -> bytes | None:
    """Returns a file's bytes."""
    return _read_file(self.root / wnid / file)


class Flat:
  """One folder with all images, and a table of their classes."""

  def __init__(self, root: pathlib.Path, wnid_of: Mapping[str, str]):
    self.root = root
    self._files = _by_class(_image_files(root), wnid_of, root)
    self.wnids = tuple(sorted(self._files))

  def files(self, wnid: str) -> Sequence[str]:
    """Returns the images of a class."""
    return self._files.get(wnid, ())

  def read(self, wnid: str, file: str) -> bytes | None:
    """Returns a file's bytes."""
    if file not in self._files.get(wnid, ()):
      return None
    return _read_file(self.root / file)


class FlatTar:
  """One tar with all images, and a table of their classes."""

  def __init__(self, path: pathlib.Path, wnid_of: Mapping[str, str]):
    self._tar = tars.Tar(path)
    self._places = {
      name.rsplit('/', 1)[-1]: place
      for name, place in tars.index(path).items()
      if name.lower().endswith(_SUFFIXES)
    }
    self._files = _by_class(sorted(self._places), wnid_of, path)
    self.wnids = tuple(sorted(self._files))

  def files(self, wnid: str) -> Sequence[str]:
    """Returns the images of a class."""
    return self._files.get(wnid, ())

  def read(self, wnid: str, file: str) -> bytes | None:
    """Returns a file's bytes."""
    if file not in self._files.get(wnid, ()):
      return None
    return self._tar.read(file, *self._places[file])


class TarOfTars:
  """The official training archive: one tar per class inside a tar.

  Args:
    path: The archive.
    kept: Folder where the index of all its files is kept, see `tars.nested`.
      Without it a class is indexed when one of its files is asked for.
  """

  def __init__(self, path: pathlib.Path, kept: pathlib.Path | None = None):
    self._tar = tars.Tar(path)
    self._inner = {
      pathlib.PurePosixPath(name).stem: place
      for name, place in tars.index(path).items()
      if _WNID.fullmatch(pathlib.PurePosixPath(name).stem)
      and name.endswith('.tar')
    }
    if not self._inner:
      raise UserError(f'{path}: holds no <wnid>.tar; is it the right archive?')
    self.wnids = tuple(sorted(self._inner))
    self._whole = tars.nested(path, self._inner, kept) if kept else None
    self._of_class: dict[str, tars.Index] = {}

  def _index(self, wnid: str) -> tars.Index:
    if wnid not in self._of_class:
      offset, size = self._inner[wnid]
      found = tars.index(self._tar.path, offset, offset + size)
      self._of_class[wnid] = found
    return self._of_class[wnid]

  def files(self, wnid: str) -> Sequence[str]:
    """Returns the images of a class."""
    if self._whole is not None:
      return self._whole.below(wnid)
    return list(self._index(wnid)) if wnid in self._inner else ()

  def read(self, wnid: str, file: str) -> bytes | None:
    """Returns a file's bytes."""
    if wnid not in self._inner:
      return None
    if self._whole is not None:
      place = self._whole.get(f'{wnid}/{file}')
    else:
      place = self._index(wnid).get(file)
    return self._tar.read(file, *place) if place else None


class ImageNetCopy:
  """A copy of ImageNet. Holds no image and no open file when pickled."""

  def __init__(self, path: pathlib.Path, splits: Mapping[str, Images]):
    self.path = path
    self._splits = dict(splits)

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits that were found: 'train', 'validation'."""
    return tuple(self._splits)

  def _images(self, split: str) -> Images:
    if split not in self._splits:
      raise UserError(
        f'{self.path}: has no {split} images, only {", ".join(self._splits)}'
      )
    return self._splits[split]

  def wnids(self, split: str = 'train') -> tuple[str, ...]:
    """Returns the classes of a split, sorted."""
    return tuple(self._images(split).wnids)

  def file_names(
    self, split: str = 'train', wnids: Sequence[str] | None = None
  ) -> list[str]:
    """Returns the names of a split's images, or of some classes' only.

    Raises:
      UserError: the copy does not have the split.
    """
    images = self._images(split)
    chosen = images.wnids if wnids is None else wnids
    return [f'{wnid}/{file}' for wnid in chosen for file in images.files(wnid)]

  def read(self, file_name: str, split: str | None = None) -> bytes:
    """Returns an image file's bytes as they are.

    Args:
      file_name: '<wnid>/<file>'.
      split: where to look; without it training images come first.

    Raises:
      UserError: the name leaves the copy, or there is no such image.
    """
    wnid, file = _parts(file_name)
    for images in [self._images(split)] if split else self._splits.values():
      data = images.read(wnid, file)
      if data is not None:
        return data
    raise UserError(f'{file_name}: is not in the ImageNet copy {self.path}')

  def wnid(self, file_name: str) -> str:
    """Returns the class of an image, from its name."""
    return _parts(file_name)[0]


def open_copy(
  path: str | os.PathLike[str], kept: pathlib.Path | None = None
) -> ImageNetCopy:
  """Returns the ImageNet copy at a folder or archive.

  Args:
    path: The folder or archive.
    kept: Folder where the index of an archive is kept: for whoever wants to
      know all of its images.

  Raises:
    UserError: nothing that looks like a copy is there.
  """
  root = pathlib.Path(path).expanduser()
  if root.is_file() and root.suffix == '.tar':
    return ImageNetCopy(root, _archive(root, kept))
  splits: dict[str, Images] = {}
  for base in (root / name for name in _ROOTS):
    if not base.is_dir():
      continue
    if 'train' not in splits and (train := _train(base, kept)):
      splits['train'] = train
    if 'validation' not in splits and (held := _validation(base)):
      splits['validation'] = held
  if not splits:
    raise UserError(
      f'{root}: no ImageNet copy found. Looked for train/<wnid>/*.JPEG, '
      f'images/<wnid>/, <wnid>/, ILSVRC/Data/CLS-LOC/train/, {_TRAIN_TAR}, '
      f'val/ and {_VALIDATION_TAR}.'
    )
  return ImageNetCopy(root, splits)


def _archive(
  path: pathlib.Path, kept: pathlib.Path | None
) -> dict[str, Images]:
  """Returns the one split in an archive that was named itself."""
  if any(name.endswith('.tar') for name in tars.index(path)):
    return {'train': TarOfTars(path, kept)}
  return {'validation': FlatTar(path, val_labels.find(path.parent))}


def _train(base: pathlib.Path, kept: pathlib.Path | None) -> Images | None:
  for name in _TRAIN:
    folder = base / name
    if wnids := _wnid_folders(folder):
      return Folders(folder, wnids)
    if (folder / _TRAIN_TAR).is_file():
      return TarOfTars(folder / _TRAIN_TAR, kept)
  return None


def _validation(base: pathlib.Path) -> Images | None:
  for name in _VALIDATION:
    folder = base / name
    if wnids := _wnid_folders(folder):
      return Folders(folder, wnids)
    if folder.is_dir() and _image_files(folder):
      return Flat(folder, val_labels.find(folder, base, base.parent))
  path = base / _VALIDATION_TAR
  if path.is_file():
    return FlatTar(path, val_labels.find(base))
  return None


def _wnid_folders(folder: pathlib.Path) -> tuple[str, ...]:
  if not folder.is_dir():
    return ()
  with os.scandir(folder) as entries:
    return tuple(
      sorted(e.name for e in entries if _WNID.fullmatch(e.name) and e.is_dir())
    )


def _image_files(folder: pathlib.Path) -> list[str]:
  if not folder.is_dir():
    return []
  with os.scandir(folder) as entries:
    return sorted(e.name for e in entries if e.name.lower().endswith(_SUFFIXES))


def _by_class(
  files: Sequence[str], wnid_of: Mapping[str, str], source: pathlib.Path
) -> dict[str, tuple[str, ...]]:
  """Returns class -> files; every file must have a label."""
  result: dict[str, list[str]] = {}
  for file in files:
    wnid = wnid_of.get(pathlib.PurePosixPath(file).stem)
    if wnid is None:
      raise UserError(f'{source}: {file} has no label in the label file')
    result.setdefault(wnid, []).append(file)
  return {wnid: tuple(names) for wnid, names in result.items()}


def _parts(file_name: str) -> tuple[str, str]:
  """Returns class and file of a name; refuses names that leave the copy."""
  wnid, _, file = file_name.partition('/')
  if (
    not _WNID.fullmatch(wnid)
    or not file
    or file.startswith('.')
    or any(character in file for character in '/\\\0')
  ):
    raise UserError(f'{file_name!r} is no image name like n01440764/x.JPEG')
  return wnid, file


def _read_file(path: pathlib.Path) -> bytes | None:
  try:
    return path.read_bytes()
  except (FileNotFoundError, NotADirectoryError):
    return None
  except OSError as error:
    raise files.unreachable(path, error.strerror) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
  """What is wrong with an image file: the kind, and what was found."""

  kind: str
  detail: str


def check(data: bytes, width: int, height: int) -> Problem | None:
  """Returns what is wrong with an image file, or None.

  The image must decode whole, by content and not by suffix, and have the given
  size in pixels before any EXIF rotation: outlines live in those coordinates.
  """
  try:
    with Image.open(io.BytesIO(data)) as image:
      image.load()
      found, rotation = image.size, image.getexif().get(0x0112, 1)
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
    what = f'image cannot be decoded ({e})'
    return Problem(kind='image that cannot be decoded', detail=what)
  if found == (width, height):
    return None
  sizes = f'{found[0]} x {found[1]} instead of {width} x {height}'
  if found == (height, width):
    what = (
      f'image is {sizes}: sides are swapped, an EXIF problem (orientation '
      f'{rotation}): the outlines were drawn on the rotated image'
    )
    return Problem(kind='image with its sides swapped', detail=what)
  what = f'image is {sizes} pixels: not the file that was annotated'
  return Problem(kind='image of another size', detail=what)


def oddities(data: bytes) -> list[str]:
  """Returns what is unusual about an image file that can be decoded."""
  with Image.open(io.BytesIO(data)) as image:
    found = {
      'image that is no JPEG inside': image.format not in ('JPEG', 'MPO'),
      'image that is not stored in RGB': image.mode != 'RGB',
      'image with an EXIF rotation': image.getexif().get(0x0112, 1) != 1,
    }
  return [kind for kind, there in found.items() if there]
