"""Lists of ImageNet validation images, and a source of what they name.

Published robust accuracies are of lists: RobustBench's 5,000 images, the 10,000
of PartImageNet++. A list is a text file of lines
'<wnid>/ILSVRC2012_val_<number>.JPEG'; the files are theirs to give, none comes
with this package.
"""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import functools
import hashlib
import os
import pathlib
import re
from typing import Any

from pinpp_jax.data import labels as labels_lib
from pinpp_jax.data.imagenet.crops import Crops
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read.sources import Example
from pinpp_jax.errors import UserError

_LINE = re.compile(r'n\d{8}/[^/\\\s]+\.(JPEG|jpeg|JPG|jpg|PNG|png)')
_OFFICIAL = re.compile(r'n\d{8}/ILSVRC2012_val_\d{8}\.JPEG')
_NAME = re.compile(r'[A-Za-z0-9][\w.-]*')
_WNID = re.compile(r'n\d{8}')
_CLASSES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
  """What is known of a published list, ImageNet's 1,000 classes aside.

  Attributes:
    file: What its authors call it.
    images: How many it names.
    absent: Classes of which it names none.
    per_class: How many it names of each other class; None if that differs.
  """

  file: str
  images: int
  absent: tuple[str, ...] = ()
  per_class: int | None = None


PUBLISHED: Mapping[str, Published] = {
  # RobustBench's; also data/imagenet_test_1k_aa.txt of PartImageNet++.
  'rb5k': Published(
    file='imagenet_test_image_ids.txt',
    images=5000,
    absent=('n02066245', 'n03482405', 'n07875152'),
  ),
  # What the configs of PartImageNet++ point to.
  'pin10k': Published(
    file='imagenet_test_1k_1w.txt', images=10000, per_class=10
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageList:
  """A list that was read, in the order of its file.

  Attributes:
    name: One of `PUBLISHED`, or the user's.
    path: Its file.
    names: '<wnid>/<file>' of each image.
  """

  name: str
  path: pathlib.Path
  names: tuple[str, ...]

  @functools.cached_property
  def hash(self) -> str:
    """What `LC_ALL=C sort FILE | sha256sum` says of it."""
    text = ''.join(f'{name}\n' for name in sorted(self.names))
    return hashlib.sha256(text.encode()).hexdigest()

  @functools.cached_property
  def counts(self) -> Mapping[str, int]:
    """How many images of each wnid it names."""
    return collections.Counter(name.partition('/')[0] for name in self.names)


def read(
  path: str | os.PathLike[str], *, name: str, list_hash: str = ''
) -> ImageList:
  """Returns the list in a file.

  Args:
    path: Of the file.
    name: What results call it. One of `PUBLISHED` must be that list, as far as
      it is known.
    list_hash: If given, the hash it must have.

  Raises:
    UserError: If there is no such file, a line is no image, an image appears
      twice, or it is another list than its name or the hash says.
  """
  if not _NAME.fullmatch(name):
    raise UserError(f'list.name={name!r} is no name of letters and digits.')
  path = pathlib.Path(path)
  official = name in PUBLISHED
  names = _names(path, _OFFICIAL if official else _LINE)
  _check_unique(names, path)
  images = ImageList(name=name, path=path, names=names)
  if official and len(names) != PUBLISHED[name].images:
    raise UserError(
      f'{path} has {len(names)} lines, {name} {PUBLISHED[name].images}: it is'
      ' another list, or was cut short.'
    )
  if list_hash and list_hash != images.hash:
    raise UserError(
      f'{path} has the hash {images.hash!r}, not {list_hash!r}: it is another'
      ' list.'
    )
  return images


def _names(path: pathlib.Path, form: re.Pattern[str]) -> tuple[str, ...]:
  lines = [line.strip() for line in _text(path).splitlines()]
  bad = [
    f'line {i}: {line[:60]!r}'
    for i, line in enumerate(lines, 1)
    if line and not form.fullmatch(line)
  ]
  if bad:
    raise UserError(
      f'{path} has {len(bad)} lines that are not of the form'
      f' n01440764/ILSVRC2012_val_00000293.JPEG: {_some(bad)}.'
    )
  names = tuple(line for line in lines if line)
  if not names:
    raise UserError(f'{path} names no image.')
  return names


def _text(path: pathlib.Path) -> str:
  try:
    return path.read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    known = ', '.join(
      f'{name} is {list_.file}' for name, list_ in PUBLISHED.items()
    )
    raise UserError(
      f'{path} cannot be read as a text file ({error}). Lists come from their'
      f' authors: {known}.'
    ) from error


def _check_unique(names: Sequence[str], path: pathlib.Path) -> None:
  # The file alone: it belongs to one class, so two lines with it are two
  # opinions about one image.
  counts = collections.Counter(name.partition('/')[2] for name in names)
  twice = [file for file, count in counts.items() if count > 1]
  if twice:
    raise UserError(
      f'{path} names {len(twice)} images more than once: {_some(twice)}.'
    )


def check(images: ImageList, labels: LabelTable) -> None:
  """Compares a list with the classes by which its images are numbered.

  Raises:
    UserError: If an image is of another class, or the list is not what was
      published under its name.
  """
  known = set(labels.wnids)
  strange = [name for name in images.names if name.split('/')[0] not in known]
  if strange:
    raise UserError(
      f'{images.path} names {len(strange)} images of none of the'
      f' {labels.num_classes} classes: {_some(strange)}.'
    )
  if images.name not in PUBLISHED:
    return
  published = PUBLISHED[images.name]
  if labels.num_classes != _CLASSES:
    raise UserError(
      f'{images.name} is a list of the {_CLASSES} classes of ImageNet-1K, and'
      f' there are {labels.num_classes}: their order would number them wrongly.'
      ' Give a table or text of all wnids as data.labels.'
    )
  missing = sorted(known - set(images.counts))
  if missing != sorted(published.absent):
    raise UserError(
      f'{images.path} names no image of {len(missing)} classes'
      f' ({_some(missing)}), {images.name} of {len(published.absent)}: it is'
      ' another list.'
    )
  count = published.per_class
  wrong = [w for w, n in images.counts.items() if count and n != count]
  if wrong:
    raise UserError(
      f'{images.path} does not name {count} images of {len(wrong)} classes'
      f' ({_some(wrong)}), as {images.name} does: it is another list.'
    )


def class_table(path: pathlib.Path) -> LabelTable:
  """Returns the classes of a label table (`labels.json`), or of a text file.

  The text has one class a line: its wnid, then perhaps its name, as in
  ImageNet's LOC_synset_mapping.txt. Whatever their order there, classes are
  numbered in the order of their wnids.

  Raises:
    UserError: If it cannot be read, or a line is no class or is repeated.
  """
  if path.suffix == '.json':
    return LabelTable.load(path)
  try:
    lines = path.read_text(encoding='utf-8-sig').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f'{path} cannot be read as a list of classes ({error}). Give a'
      ' labels.json or a text file with one wnid a line.'
    ) from error
  words = [line.split(maxsplit=1) for line in lines if line.strip()]
  wnids = [word[0] for word in words]
  bad = [wnid for wnid in wnids if not _WNID.fullmatch(wnid)]
  if bad or not wnids or len(set(wnids)) < len(wnids):
    raise UserError(
      f'{path} must have one wnid such as n01440764 at the start of each line,'
      f' each once{": " + _some(bad) if bad else ""}.'
    )
  return labels_lib.class_only(
    wnids, [word[-1].split(',')[0].strip() for word in words]
  )


class Listed:
  """The images of a list, with a class and without parts, already cut.

  An example's image is an uncompressed file (PPM) of the crop, so that whoever
  decodes it has the pixels that Pillow cut once.

  Args: `images`, their `crops`, and the `labels` that number their classes.

  Raises:
    UserError: See `check`.
  """

  def __init__(self, *, images: ImageList, crops: Crops, labels: LabelTable):
    check(images, labels)
    self.labels = labels
    self._images, self._crops = images, crops

  @property
  def about(self) -> dict[str, Any]:
    """What a result must say of these images, for JSON."""
    return {
      'folder': str(self._crops.path.parent),
      'split_hash': self._images.hash,
      **self._crops.about,
    }

  def __len__(self) -> int:
    return len(self._images.names)

  def __getitem__(self, index: int) -> Example:
    # Python stops iterating a sequence at an IndexError.
    if not 0 <= index < len(self):
      raise IndexError(index)
    name, pixels = self._images.names[index], self._crops[index]
    wnid = name.partition('/')[0]
    header = f'P6 {pixels.shape[1]} {pixels.shape[0]} 255\n'
    return Example(
      image=header.encode() + pixels.tobytes(),
      part_mask=None,
      label=self.labels.class_index(wnid),
      file_name=name,
      source='none',
      wnid=wnid,
    )

  def file_name(self, index: int) -> str:
    """Returns the file name of the example at `index`."""
    return self._images.names[index]


def _some(words: Sequence[str]) -> str:
  """Returns the first few of some words, for a message."""
  return ', '.join(words[:5]) + ', ...' * (len(words) > 5)
