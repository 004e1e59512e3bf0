"""Every class of a release against its images: read, checked and painted.

What a build goes through and what a check reports is the same sequence of
guards; `Findings` decides whether the first broken thing ends it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from pinpp_jax.data import masks
from pinpp_jax.data.imagenet import layouts
from pinpp_jax.data.imagenet.layouts import ImageNetCopy
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.release import nesting, painting, splits
from pinpp_jax.data.release.findings import Findings, Place, Refused
from pinpp_jax.data.release.reader import Release
from pinpp_jax.data.release.records import ClassRecord, ImageRecord
from pinpp_jax.errors import UnreachableError, UserError

# What the release announces for the complete data set (its README and paper).
PUBLISHED = {
  'classes': 1_000,
  'images': 100_000,
  'parts': 3_308,
  'masks': 406_364,
}
_PER_CLASS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examined:
  """What is known of one image: its mask's PNG, its file's size in bytes."""

  png: bytes
  image_size: int


def classes(
  release: Release,
  copy: ImageNetCopy | None,
  progress: Callable[[Sequence[str]], Iterable[str]] = iter,
  full: bool = False,
  each: Callable[..., Iterable[Any]] = map,
) -> Iterator[tuple[ClassRecord, list[Examined]]]:
  """Yields every class with its usable images, and these as examined.

  Args:
    release: the annotations.
    copy: where the images are; without it they are painted but not looked at.
    progress: passes the classes on and shows how far they are.
    full: whether each class must have the published number of images.
    each: as `map`, over the classes; possibly in other processes.

  Raises:
    UserError: the first thing that is broken, unless the findings go on.
  """
  look = functools.partial(_class, release, copy, full)
  for found, findings in each(look, progress(release.wnids)):
    release.findings.absorb(findings)
    if found is not None:
      yield found


def _class(
  release: Release, copy: ImageNetCopy | None, full: bool, wnid: str
) -> tuple[tuple[ClassRecord, list[Examined]] | None, Findings]:
  """Returns a class, unless it cannot be read, and what was found in it."""
  findings = release.findings.like()
  release = release.noting(findings)
  try:
    record = release.load(wnid)
  except Refused:
    if not findings.collect:
      raise
    return None, findings
  images, seen = [], []
  for image in record.images:
    found = _image(image, record, copy, findings)
    if found:
      images.append(image)
      seen.append(found)
  place = Place(text=f'json/{wnid}.json', wnid=wnid)
  if not images:
    what = 'no usable image is left of this class'
    findings.refuse('class without usable images', place, what)
  elif full and len(images) != _PER_CLASS:
    what = f'{len(images)} images instead of {_PER_CLASS}'
    findings.bad('class without 100 images', place, what)
  record = dataclasses.replace(record, images=tuple(images))
  return (record, seen), findings


def _image(
  image: ImageRecord,
  record: ClassRecord,
  copy: ImageNetCopy | None,
  findings: Findings,
) -> Examined | None:
  """Checks and paints one image; None when it is skipped."""
  place = Place(
    text=f'json/{record.wnid}.json, image {image.id} ({image.file_name})',
    wnid=record.wnid,
    image=image.file_name,
  )
  size = 0 if copy is None else _file(image, copy, place, findings)
  if size is None:
    return None
  painted = painting.paint(image, record)
  if painted.undeclared:
    kind = 'pixels shared by parts without a declared relation'
    findings.note(kind, place, painted.undeclared)
  for part in painted.vanished:
    name = record.part_names[part - 1]
    here = dataclasses.replace(place, text=image.file_name, part=part)
    findings.warn('part hidden by others', here, name)
  for number in painted.empty:
    here = dataclasses.replace(
      place, text=f'{place}, annotation {number}', annotation=number
    )
    findings.warn('annotation covers no pixel', here)
  _containers(image, record, place, findings)
  if not image.annotations:
    findings.warn('image without annotations', place)
  png = masks.encode(painted.mask)
  if not np.array_equal(masks.decode(png), painted.mask):
    findings.refuse('part mask that its PNG changes', place)
  return Examined(png=png, image_size=size)


def _file(
  image: ImageRecord, copy: ImageNetCopy, place: Place, findings: Findings
) -> int | None:
  """Returns the size of an image's file in bytes; None if it is skipped."""
  try:
    data = copy.read(image.file_name, 'train')
  except UnreachableError:
    raise
  except UserError as error:
    what = str(error).removeprefix(f'{image.file_name}: ')
    findings.bad('image not in the copy', place, what)
    return None
  problem = layouts.check(data, image.width, image.height)
  if problem:
    findings.bad(problem.kind, place, problem.detail)
    return None
  for kind in layouts.oddities(data):
    findings.note(kind, place)
  return len(data)


def _containers(
  image: ImageRecord, record: ClassRecord, place: Place, findings: Findings
) -> None:
  """Counts contained parts that are annotated without any container."""
  there = {annotation.part for annotation in image.annotations}
  for part, above in enumerate(nesting.ancestors(record.parents), 1):
    if part in there and above and not above & there:
      name = record.part_names[part - 1]
      here = dataclasses.replace(
        place, text=f'{image.file_name}: {name}', part=part
      )
      findings.note('contained part without its container', here)


def totals(
  table: LabelTable,
  images: int,
  findings: Findings,
  expected: Mapping[str, int] | None = None,
) -> None:
  """Compares a release with the numbers it must have.

  Without `expected` these are the published ones, and only a release of 1,000
  classes is compared.

  Raises:
    UserError: the number of classes or images differs (unless skipping was
      asked for). Parts and masks only warn: the published numbers disagree
      themselves.
  """
  place = Place(text='the release as a whole')
  if expected is None:
    if table.num_classes != PUBLISHED['classes']:
      return
    expected = PUBLISHED
  found = {
    'classes': table.num_classes,
    'images': images,
    'parts': table.num_parts,
    'masks': sum(part.count for part in table.parts),
  }
  word = 'published' if expected is PUBLISHED else 'expected'
  for key, number in expected.items():
    if found[key] == number:
      continue
    add = findings.bad if key in ('classes', 'images') else findings.warn
    add(
      f'{key} differ from the expected number',
      place,
      f'{found[key]} {key} instead of the {word} {number} '
      f'({found[key] - number:+d})',
    )


def known_classes(wnids: Sequence[str], findings: Findings) -> None:
  """Compares the classes of a complete release with those of ImageNet-1K.

  Raises:
    UserError: one is missing or another's, unless skipping was asked for.
  """
  path = tfds.core.tfds_path('datasets/imagenet2012/labels.txt')
  known = set(path.read_text().split())
  for wnid in sorted(known - set(wnids)):
    place = Place(text=f'json/{wnid}.json', wnid=wnid)
    findings.bad('class missing', place, 'there is no such file')
  for wnid in sorted(set(wnids) - known):
    place = Place(text=f'json/{wnid}.json', wnid=wnid)
    findings.bad('class that is not of ImageNet-1K', place)


def split(
  release: Release, classes: Sequence[Sequence[str]]
) -> tuple[splits.Split, str]:
  """Returns the split of the images of each class, and the rule behind it.

  Raises:
    UserError: the release's own split files do not fit, unless all is to be
      collected; then the split is the canonical one.
  """
  findings, names = release.findings, [n for files in classes for n in files]
  try:
    given = splits.given(release.folder, names)
  except UserError as error:
    kind, place = 'split files that do not fit', Place(text='splits/')
    findings.refuse(kind, place, str(error))
    given = None
  result = given or splits.canonical(classes)
  left_out = len(names) - sum(len(files) for files in result.values())
  if left_out:
    findings.note('image in no split file', Place(text='splits/'), left_out)
  return result, splits.GIVEN if given else splits.CANONICAL
