"""Lists of ImageNet validation images, and a source of their images.

Published robust accuracies are measured on such lists: the 5,000 images of
RobustBench, the 10,000 of PartImageNet++. A list is a text file with lines
'<wnid>/ILSVRC2012_val_<number>.JPEG'. Their authors distribute the files; this
package contains none.
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
  """Facts about a published list over the 1,000 classes of ImageNet.

  Attributes:
    file: The authors' name of the file.
    images: Number of images.
    absent: Classes without an image in the list.
    per_class: Number of images of each other class; None if it varies.
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
  """An image list, in the order of its file.

  Attributes:
    name: One of `PUBLISHED`, or a name chosen by the user.
    path: The file.
    names: '<wnid>/<file>' of each image.
  """

  name: str
  path: pathlib.Path
  names: tuple[str, ...]

  @functools.cached_property
  def hash(self) -> str:
    """SHA-256 of the sorted lines, as by `LC_ALL=C sort FILE | sha256sum`."""
    text = ''.join(f'{name}\n' for name in sorted(self.names))
    return hashlib.sha256(text.encode()).hexdigest()

  @functools.cached_property
  def counts(self) -> Mapping[str, int]:
    """The number of images of each wnid."""
    return collections.Counter(name.partition('/')[0] for name in self.names)


def read(
  path: str | os.PathLike[str], *, name: str, list_hash: str = ''
) -> ImageList:
  """Returns the list in a file.

  Args:
    path: Of the file.
    name: The list's name in results. If it is one of `PUBLISHED`, the file must
      agree with the facts given there.
    list_hash: If given, the hash the list must have.

  Raises:
    UserError: The file is missing, a line is not an image name, an image
      appears twice, or the list does not match its name or hash.
  """
  if not _NAME.fullmatch(name):
    raise UserError(
      f'list.name={name!r} must start with a letter or digit and contain only'
      ' letters, digits, ".", "_" and "-".'
    )
  path = pathlib.Path(path)
  official = name in PUBLISHED
  names = _names(path, _OFFICIAL if official else _LINE)
  _check_unique(names, path)
  images = ImageList(name=name, path=path, names=names)
  if official and len(names) != PUBLISHED[name].images:
    raise UserError(
      f'{path} has {len(names)} lines, but {name} has'
      f' {PUBLISHED[name].images}: it is a different list, or was cut short.'
    )
  if list_hash and list_hash != images.hash:
    raise UserError(
      f'{path} has the hash {images.hash!r}, not {list_hash!r}: it is a'
      ' different list.'
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
    raise UserError(f'{path} is empty: it must name one image per line.')
  return names


def _text(path: pathlib.Path) -> str:
  try:
    return path.read_text(encoding='utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    known = ', '.join(
      f'{name} is {list_.file}' for name, list_ in PUBLISHED.items()
    )
    raise UserError(
      f'{path} cannot be read as a text file ({error}). Get the list from its'
      f' authors: {known}.'
    ) from error


def _check_unique(names: Sequence[str], path: pathlib.Path) -> None:
  # Without the class: an image has one class, so the same file under two
  # classes is a duplicate, too.
  counts = collections.Counter(name.partition('/')[2] for name in names)
  twice = [file for file, count in counts.items() if count > 1]
  if twice:
    raise UserError(
      f'{path} lists {len(twice)} images more than once: {_some(twice)}.'
    )


def check(images: ImageList, labels: LabelTable) -> None:
  """Checks that a list fits a label table.

  Raises:
    UserError: If the class of an image is not in the table, or the list is not
      the one published under its name.
  """
  known = set(labels.wnids)
  strange = [name for name in images.names if name.split('/')[0] not in known]
  if strange:
    raise UserError(
      f'{images.path} lists {len(strange)} images whose class is not one of the'
      f' {labels.num_classes} classes of the label table: {_some(strange)}.'
    )
  if images.name not in PUBLISHED:
    return
  published = PUBLISHED[images.name]
  if labels.num_classes != _CLASSES:
    raise UserError(
      f'{images.name} covers the {_CLASSES} classes of ImageNet-1K, but the'
      f' label table has {labels.num_classes}, so class indices would be wrong.'
      ' Set data.labels to a label table or a text file of all wnids.'
    )
  missing = sorted(known - set(images.counts))
  if missing != sorted(published.absent):
    raise UserError(
      f'{images.path} has no image of {len(missing)} classes'
      f' ({_some(missing)}), but {images.name} lacks'
      f' {len(published.absent)}: it is a different list.'
    )
  count = published.per_class
  wrong = [w for w, n in images.counts.items() if count and n != count]
  if wrong:
    raise UserError(
      f'{images.path}: {len(wrong)} classes ({_some(wrong)}) do not have'
      f' {count} images each, as in {images.name}: it is a different list.'
    )


def class_table(path: pathlib.Path) -> LabelTable:
  """Returns the classes of a label table (`labels.json`), or of a text file.

  A text file has one class per line, its wnid and optionally its name, as in
  ImageNet's LOC_synset_mapping.txt. Classes are numbered in the order of their
  wnids, whatever the order of the lines.

  Raises:
    UserError: If it cannot be read, a line has no wnid, or a class is repeated.
  """
  if path.suffix == '.json':
    return LabelTable.load(path)
  try:
    lines = path.read_text(encoding='utf-8-sig').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f'{path} cannot be read as a list of classes ({error}). Name a'
      ' labels.json or a text file with one wnid per line.'
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
  """The cropped images of a list, with a class and without parts.

  An example's image is the crop as an uncompressed file (PPM), so that decoding
  it gives exactly the stored pixels.

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
    """The description of these images in a result's JSON."""
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
