"""COCO and LVIS: a JSON file per split, of parts, objects or both.

A part's annotation is what was drawn, so annotations may overlap; an object is
the union of all parts of an image's class. Categories say how parts contain
each other, so that `painted` can paint the part masks again.
"""

import collections
from collections.abc import Iterator, Mapping
import itertools
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

import numpy as np

from pinpp_jax.data import text
from pinpp_jax.data.labels import LabelTable, Part
from pinpp_jax.data.read import annotated
from pinpp_jax.data.read.annotated import AnnotatedImage, Images
from pinpp_jax.data.release import concepts
from pinpp_jax.data.release.records import ClassRecord
from pinpp_jax.errors import UserError
from pinpp_jax.exports import outlines

KINDS = ('parts', 'objects', 'both')
_RARE, _COMMON = 10, 100  # LVIS: in at most so many training images.


def write(
  images: Mapping[str, Images],
  labels: LabelTable,
  folder: pathlib.Path,
  *,
  kind: str = 'parts',
  lvis: bool = False,
) -> None:
  """Writes <split>.json for every split.

  Args:
    images: those of each split.
    labels: the table they are numbered by.
    folder: where to.
    kind: one of KINDS.
    lvis: adds LVIS's fields. Counts and frequencies are those of 'train', in
      every file.

  Raises:
    UserError: the kind is unknown, or 'train' is not among the splits although
      its counts are needed.
  """
  if kind not in KINDS:
    raise UserError(f'kind={kind!r} is not one of {", ".join(KINDS)}.')
  if lvis and 'train' not in images:
    raise UserError(
      'LVIS files say how many images of train each category has: export train '
      'too, or leave out --lvis.'
    )
  writer = _Writer(labels, kind, lvis)
  for split, some in images.items():  # 'train' comes first.
    writer.write(folder / f'{split}.json', some, count=split == 'train')


class _Writer:
  """Writes files whose ids of images and annotations are all different."""

  def __init__(self, labels: LabelTable, kind: str, lvis: bool):
    self._labels, self._lvis = labels, lvis
    self._parts, self._objects = kind != 'objects', kind != 'parts'
    self._image_ids, self._ids = itertools.count(1), itertools.count(1)
    self._images_of: collections.Counter[int] = collections.Counter()
    self._instances_of: collections.Counter[int] = collections.Counter()

  def write(self, path: pathlib.Path, images: Images, *, count: bool) -> None:
    """Writes a split, one image after another; only one is in memory.

    Args:
      path: Of the file.
      images: Of the split.
      count: Whether the counts of all files are those of this one.
    """
    with (
      open(path, 'w', encoding='utf-8') as file,
      # A file has its images in one list and their annotations in another.
      tempfile.TemporaryFile('w+', encoding='utf-8') as heads,
    ):
      file.write('{"annotations": [')
      comma = ''
      for i, image in enumerate(images):
        number = next(self._image_ids)
        entries = self._annotations(image, number)
        if count:
          categories = [entry['category_id'] for entry in entries]
          self._instances_of.update(categories)
          self._images_of.update(set(categories))
        for entry in entries:
          file.write(f'{comma}\n{_json(entry)}')
          comma = ','
        head = _json(self._image(image, number, entries))
        heads.write(f'{"," * (i > 0)}\n{head}')
      heads.seek(0)
      file.write('],\n"images": [')
      shutil.copyfileobj(heads, file)
      file.write('],\n"categories": [\n')
      file.write(',\n'.join(map(_json, self._categories())))
      file.write(f'],\n"info": {_json({"description": _DESCRIPTION})}}}\n')

  def _annotations(
    self, image: AnnotatedImage, number: int
  ) -> list[dict[str, Any]]:
    """Returns the annotations of an image that cover a pixel."""
    height, width = image.mask.shape
    found = []
    if self._parts:
      first = int(self._labels.first[image.label])
      for region in image.regions:
        outline = outlines.segmentation(region)
        runs = outlines.runs(region, height, width)
        found.append((first + region.part - 1, outline, runs))
    if self._objects:
      # Whatever a part covers, some part is painted on.
      runs = outlines.of_pixels(image.mask > 0)
      found.append((self._object(image.label), runs, runs))
    entries = [
      {
        'id': next(self._ids),
        'image_id': number,
        'category_id': category,
        'segmentation': outline,
        'area': outlines.area(runs),
        'bbox': outlines.box(runs),
        'iscrowd': 0,
      }
      for category, outline, runs in found
      if outlines.area(runs)
    ]
    if self._parts and self._objects and entries:
      for entry in entries:
        entry['obj_ann_id'] = entries[-1]['id']
    return entries

  def _object(self, label: int) -> int:
    return label + 1 + (self._labels.num_parts if self._parts else 0)

  def _image(
    self, image: AnnotatedImage, number: int, entries: list[dict[str, Any]]
  ) -> dict[str, Any]:
    height, width = image.mask.shape
    head = {
      'id': number,
      'file_name': image.file_name,
      'width': width,
      'height': height,
      'wnid': image.wnid,
      'source': image.source,
    }
    if self._lvis:
      head['neg_category_ids'] = self._absent(image, entries)
      head['not_exhaustive_category_ids'] = []
    return head

  def _absent(
    self, image: AnnotatedImage, entries: list[dict[str, Any]]
  ) -> list[int]:
    """Returns the parts of an image's class that somebody did not find.

    Nobody looked for parts of other classes, nor at what a network drew.
    """
    if not self._parts or image.source != 'human':
      return []
    there = {entry['category_id'] for entry in entries}
    parts = self._labels.of_class(image.wnid)
    return [p.global_id for p in parts if p.global_id not in there]

  def _categories(self) -> Iterator[dict[str, Any]]:
    labels = self._labels
    if self._parts:
      for part in labels.parts:
        yield self._counted(self._part_category(part))
    if self._objects:
      names = zip(labels.wnids, labels.object_names, strict=True)
      for label, (wnid, name) in enumerate(names):
        yield self._counted(
          {
            'id': self._object(label),
            'name': name,
            'supercategory': 'object',
            'wnid': wnid,
          }
        )

  def _part_category(self, part: Part) -> dict[str, Any]:
    siblings = self._labels.of_class(part.wnid)
    return {
      'id': part.global_id,
      'name': part.name,
      'supercategory': 'part',
      'wnid': part.wnid,
      'object': part.object_name,
      'concept': concepts.of_part(part),
      'local_index': part.local_index,
      'inside': [p.global_id for p in siblings if p.name in part.parent],
    }

  def _counted(self, category: dict[str, Any]) -> dict[str, Any]:
    """Returns a category, with LVIS's fields if these are wanted."""
    if not self._lvis:
      return category
    images = self._images_of[category['id']]
    frequency = 'r' if images <= _RARE else 'c' if images <= _COMMON else 'f'
    return {
      **category,
      'synset': category['wnid'],
      'frequency': frequency,
      'image_count': images,
      'instance_count': self._instances_of[category['id']],
    }


_DESCRIPTION = (
  'Part annotations of ImageNet images, which are not included: file_name is '
  'relative to the training images of ImageNet-1K. Written by pinpp_jax.'
)


def _json(value: Any) -> str:
  return json.dumps(value, separators=(',', ':'), ensure_ascii=False)


def painted(path: str | os.PathLike[str]) -> Iterator[tuple[str, np.ndarray]]:
  """Yields the file name and part mask of every image of a file with parts.

  Masks are uint8 (height, width) of local indices, painted from the annotations
  as a build of the data set paints them.

  Raises:
    UserError: the file cannot be read, or has no parts.
  """
  data = text.read_json(path)
  records = _records(data['categories'])
  if not records:
    raise UserError(f'{path} holds objects alone: there is nothing to paint.')
  entries: dict[int, list[dict[str, Any]]] = collections.defaultdict(list)
  objects = {
    c['id'] for c in data['categories'] if c['supercategory'] == 'object'
  }
  for entry in data['annotations']:
    if entry['category_id'] not in objects:
      entries[entry['image_id']].append(entry)
  for image in data['images']:
    size = image['height'], image['width']
    record = records[image['wnid']]
    drawn = annotated.regions(entries[image['id']], record, *size)
    yield image['file_name'], annotated.repaint(drawn, record, *size)


def _records(
  categories: list[dict[str, Any]],
) -> dict[str, ClassRecord]:
  """Returns what painting must know of every class that has parts."""
  classes: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
  for category in categories:
    if category['supercategory'] == 'part':
      classes[category['wnid']].append(category)
  records = {}
  for wnid, parts in classes.items():
    parts.sort(key=lambda part: part['local_index'])
    local = {part['id']: part['local_index'] for part in parts}
    names = tuple(part['name'] for part in parts)
    records[wnid] = ClassRecord(
      wnid=wnid,
      object_name=parts[0]['object'],
      part_names=names,
      generic_names=names,
      category_ids=tuple(local),
      parents=tuple(tuple(local[i] for i in p['inside']) for p in parts),
      images=(),
    )
  return records
