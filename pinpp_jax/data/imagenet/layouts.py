"""An ImageNet copy in any usual layout, read at random and bit by bit.

Training images: `train/<wnid>/*.JPEG`, `images/<wnid>/`, `<wnid>/` itself,
Kaggle's `ILSVRC/Data/CLS-LOC/train/<wnid>/`, or `ILSVRC2012_img_train.tar`, a
tar of one tar per class, which is never unpacked. Validation images: a folder
per wnid, or a flat folder or tar with the official labels.

An image's name is '<wnid>/<file>', whatever the layout.
"""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import functools
import io
import os
import pathlib
import re
from typing import Protocol

from PIL import Image

from pinpp_jax.data import files, text, views
from pinpp_jax.data.imagenet import tars, val_labels
from pinpp_jax.errors import UserError

_WNID = re.compile(r'n\d{8}')
_SUFFIXES = ('.jpeg', '.jpg', '.png')
_ROOTS = ('', 'ILSVRC', 'imagenet', 'imagenet-1k', 'ILSVRC2012')
_TRAIN = ('train', 'Data/CLS-LOC/train', 'images', 'img_train', '')
_VALIDATION = ('val', 'validation', 'Data/CLS-LOC/val', 'img_val')
_TRAIN_TAR = 'ILSVRC2012_img_train.tar'
_VALIDATION_TAR = 'ILSVRC2012_img_val.tar'
_CLASSES = 1000
# Of the complete copy of 2012: images; the fewest and the most of a class.
_PUBLISHED = {'train': (1_281_167, 732, 1300), 'validation': (50_000, 50, 50)}


class NoCopyError(UserError):
  """Nothing that looks like an ImageNet copy is there."""


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
  """One folder with all images, and a table of their classes.

  Args:
    root: The folder.
    wnid_of: The class of each stem; None if no label file is there, which only
      those miss who ask for these images.
    places: Where label files were looked for.
  """

  def __init__(
    self,
    root: pathlib.Path,
    wnid_of: Mapping[str, str] | None,
    places: Sequence[pathlib.Path],
  ):
    self.root = root
    self._wnid_of, self._places = wnid_of, places

  @functools.cached_property
  def _files(self) -> Mapping[str, tuple[str, ...]]:
    if self._wnid_of is None:
      raise val_labels.absent(*self._places)
    return _by_class(_image_files(self.root), self._wnid_of, self.root)

  @property
  def wnids(self) -> Sequence[str]:
    """The classes, sorted."""
    return tuple(sorted(self._files))

  def files(self, wnid: str) -> Sequence[str]:
    """Returns the images of a class."""
    return self._files.get(wnid, ())

  def read(self, wnid: str, file: str) -> bytes | None:
    """Returns a file's bytes."""
    if file not in self.files(wnid):
      return None
    return _read_file(self.root / file)


class FlatTar(Flat):
  """One tar with all images, and a table of their classes; args as Flat."""

  @functools.cached_property
  def _tar(self) -> tars.Tar:
    return tars.Tar(self.root)

  @functools.cached_property
  def _place(self) -> Mapping[str, tuple[int, int]]:
    found = tars.index(self.root)
    return {_base(name): place for name, place in found.items()}

  @functools.cached_property
  def _files(self) -> Mapping[str, tuple[str, ...]]:
    if self._wnid_of is None:
      raise val_labels.absent(*self._places)
    images = sorted(name for name in self._place if _is_image(name))
    return _by_class(images, self._wnid_of, self.root)

  def read(self, wnid: str, file: str) -> bytes | None:
    """Returns a file's bytes."""
    if file not in self.files(wnid):
      return None
    return self._tar.read(file, *self._place[file])


class TarOfTars:
  """The official training archive: one tar per class inside a tar.

  Args:
    path: The archive.
    kept: Folder where the index of all its files is kept, see `tars.nested`.
      Without it a class is indexed when one of its files is asked for.
  """

  def __init__(self, path: pathlib.Path, kept: pathlib.Path | None = None):
    self._tar, self._kept = tars.Tar(path), kept
    self._of_class: dict[str, tars.Index] = {}

  @functools.cached_property
  def _inner(self) -> Mapping[str, tuple[int, int]]:
    found = {
      _base(name).removesuffix('.tar'): place
      for name, place in tars.index(self._tar.path).items()
      if name.endswith('.tar')
    }
    inner = {wnid: p for wnid, p in found.items() if _WNID.fullmatch(wnid)}
    if not inner:
      raise UserError(
        f'{self._tar.path}: holds no <wnid>.tar; is it the right archive?'
      )
    return inner

  @functools.cached_property
  def _whole(self) -> tars.Index | None:
    if self._kept is None:
      return None
    return tars.nested(self._tar.path, self._inner, self._kept)

  @property
  def wnids(self) -> Sequence[str]:
    """The classes, sorted."""
    return tuple(sorted(self._inner))

  def _index(self, wnid: str) -> tars.Index:
    if wnid not in self._of_class:
      found = tars.index(self._tar.path, *self._inner[wnid], name=wnid)
      self._of_class[wnid] = found
    return self._of_class[wnid]

  def files(self, wnid: str) -> Sequence[str]:
    """Returns the images of a class."""
    if wnid not in self._inner:
      return ()
    whole = self._whole
    every = self._index(wnid) if whole is None else whole.below(wnid)
    return [name for name in every if _is_image(name)]

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


def incomplete(names: Sequence[str], split: str) -> str:
  """Returns how a copy of all 1,000 classes differs from the published one.

  Args:
    names: Of all images of the split.
    split: 'train' or 'validation'.

  Returns:
    '' if it does not, or if it has another number of classes.
  """
  counts = collections.Counter(name.partition('/')[0] for name in names)
  if len(counts) != _CLASSES:
    return ''
  total, least, most = _PUBLISHED[split]
  odd = [
    f'{w} {n}' for w, n in sorted(counts.items()) if not least <= n <= most
  ]
  if not odd and len(names) == total:
    return ''
  some = f'; of the classes, {", ".join(odd[:5])}' if odd else ''
  more = f' and {len(odd) - 5} more' if len(odd) > 5 else ''
  return (
    f'{len(names):,} {split} images in {_CLASSES:,} classes; the complete copy '
    f'has {total:,}, and {least} to {most} in each class{some}{more}'
  )


def open_copy(
  path: str | os.PathLike[str], kept: pathlib.Path | None = None
) -> ImageNetCopy:
  """Returns the ImageNet copy at a folder or archive.

  A split is opened when it is first asked for: what is wrong with one keeps
  nobody from the other.

  Args:
    path: The folder or archive.
    kept: Folder where the index of an archive is kept: for whoever wants to
      know all of its images.

  Raises:
    NoCopyError: nothing that looks like a copy is there.
    UserError: a label file of validation images is damaged.
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
    raise NoCopyError(
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
  return {'validation': _labelled(FlatTar, path, path.parent)}


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
      return _labelled(Flat, folder, folder, base, base.parent)
  path = base / _VALIDATION_TAR
  if path.is_file():
    return _labelled(FlatTar, path, base)
  return None


def _labelled(
  kind: type[Flat], path: pathlib.Path, *folders: pathlib.Path
) -> Flat:
  """Returns the images in one place, with the labels in one of the folders."""
  return kind(path, val_labels.find(*folders), folders)


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
    return sorted(e.name for e in entries if _is_image(e.name) and e.is_file())


def _is_image(name: str) -> bool:
  """Whether a file of a class is one of its images: `read` takes its name.

  Systems leave files of their own among images, such as ._x.JPEG.
  """
  return name.lower().endswith(_SUFFIXES) and _is_plain(name)


def _is_plain(name: str) -> bool:
  return not name.startswith('.') and not any(c in name for c in '/\\\0')


def _base(name: str) -> str:
  return name.rsplit('/', 1)[-1]


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
  if not _WNID.fullmatch(wnid) or not file or not _is_plain(file):
    raise UserError(f'{file_name!r} is no image name like n01440764/x.JPEG')
  return wnid, file


def _read_file(path: pathlib.Path) -> bytes | None:
  try:
    return files.read(path)
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
    text.refuse_pointer(data, 'it')
    with Image.open(io.BytesIO(data)) as image:
      image.load()
      views.eight_bits(image)
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
      'image of 16 bits': image.mode.startswith('I'),
      'image with an EXIF rotation': image.getexif().get(0x0112, 1) != 1,
    }
  return [kind for kind, there in found.items() if there]
