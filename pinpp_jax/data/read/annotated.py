"""Images of built data sets with their part regions and painted masks.

Exports and `pinpp concepts` read data sets through this module. Several sets
with the same label table are read as one, and a mask predicted by a network
gives one region per part.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from pinpp_jax.data import labels, masks
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read import open_any, sources
from pinpp_jax.data.read.sources import Recorded
from pinpp_jax.data.release import coco_masks, painting
from pinpp_jax.data.release.records import (
  Annotation,
  ClassRecord,
  ImageRecord,
  Rle,
)
from pinpp_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnnotatedImage:
  """One image of a built data set.

  `image` is the encoded file, `label` the class index, `source` is 'human',
  'pseudo' or 'none'. `mask` is the painted part mask, uint8 (height, width) of
  local indices. `regions` are the annotations as drawn, which may overlap; a
  'pseudo' image has one region for each part of its mask.
  """

  file_name: str
  wnid: str
  label: int
  source: str
  image: bytes
  mask: np.ndarray
  regions: tuple[Annotation, ...]


# Wraps the images to show progress, as tqdm does: (images, number, split).
Progress = Callable[
  [Iterable[AnnotatedImage], int, str], Iterable[AnnotatedImage]
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
  """The images of a split, one set after another."""

  split: str
  sources: tuple[Recorded, ...]
  progress: Progress = lambda images, count, split: images

  def __len__(self) -> int:
    return sum(map(len, self.sources))

  def __iter__(self) -> Iterator[AnnotatedImage]:
    images = (read(s, i) for s in self.sources for i in range(len(s)))
    return iter(self.progress(images, len(self), self.split))


class DataSet:
  """Several built data sets, read as one.

  Args: `names` of the sets, or their folders (see `open_any.data_set`), and
  `data_dir`, the folder of built data sets. `labels` is the table that all
  share, `splits` are the names of their splits, 'train' first.

  Raises:
    UserError: a set is missing, two number their parts differently, or an image
      is in two of them.
  """

  def __init__(self, names: Sequence[str], data_dir: str = ''):
    folders = [open_any.data_set(name, data_dir) for name in names]
    _check_distinct([str(folder) for folder in folders])
    found: dict[str, list[Recorded]] = {}
    table: LabelTable | None = None
    for folder in folders:
      for split in sorted(tfds.builder_from_directory(folder).info.splits):
        source = Recorded(dataset=str(folder), split=split, labels=table)
        table = table or source.labels
        found.setdefault(split, []).append(source)
    if table is None:
      raise UserError(f'{", ".join(map(str, folders))}: no split was found.')
    self.labels = table
    self.splits = tuple(sorted(found, key=lambda name: (name != 'train', name)))
    self._sources = found

  def images(
    self, splits: Iterable[str] = (), progress: Progress | None = None
  ) -> dict[str, Images]:
    """Returns the images of some splits in the order of `splits`, or of all.

    Raises:
      UserError: a split does not exist.
    """
    wanted = set(splits) or set(self.splits)
    if unknown := sorted(wanted - set(self.splits)):
      raise UserError(
        f'There is no split {unknown[0]!r}; the splits are '
        f'{", ".join(self.splits)}.'
      )
    more = {'progress': progress} if progress else {}
    return {
      name: Images(split=name, sources=tuple(self._sources[name]), **more)
      for name in self.splits
      if name in wanted
    }

  @property
  def about(self) -> list[dict[str, str]]:
    """Name, version and split hash of every set, for JSON."""
    sources_of = {s.folder: s for some in self._sources.values() for s in some}
    return [
      {
        'name': folder.parent.name,
        'version': folder.name,
        'split_hash': source.split_hash,
      }
      for folder, source in sources_of.items()
    ]


def _check_distinct(folders: Sequence[str]) -> None:
  seen: dict[str, str] = {}
  for folder in folders:
    for image in sources.file_names(folder):
      if image in seen:
        raise UserError(
          f'{image} is in both {seen[image]} and {folder}. Name data sets that '
          'have no image in common.'
        )
      seen[image] = folder


def read(source: Recorded, index: int) -> AnnotatedImage:
  """Returns the image at an index.

  Raises:
    UserError: the record is damaged, or the label table has no part for the
      category_id of an annotation.
  """
  example = source[index]
  record = labels.class_record(source.labels, example['wnid'])
  stored = example['part_mask']
  if stored is None:
    with Image.open(io.BytesIO(example['image'])) as image:
      width, height = image.size
    mask = np.zeros((height, width), np.uint8)
  else:
    mask = masks.decode(stored)
  if example['source'] == 'pseudo':
    drawn = of_mask(mask)
  else:
    drawn = regions(source.annotations(index), record, *mask.shape)
  return AnnotatedImage(
    file_name=example['file_name'],
    wnid=example['wnid'],
    label=example['label'],
    source=example['source'],
    image=example['image'],
    mask=mask,
    regions=drawn,
  )


def regions(
  entries: Iterable[Mapping[str, Any]],
  record: ClassRecord,
  height: int,
  width: int,
) -> tuple[Annotation, ...]:
  """Returns the stored COCO entries of an image as regions of its parts.

  Raises:
    UserError: the label table has no part for a category_id.
  """
  ignore = lambda *_: None  # The build has already reported its findings.
  local = {number: i for i, number in enumerate(record.category_ids, 1)}
  found = []
  for position, entry in enumerate(entries, 1):
    part = local.get(int(entry['category_id']))
    if part is None:
      raise UserError(
        f'the label table has no part of {record.wnid} with category_id '
        f'{entry["category_id"]}: the data set was built by an older version. '
        'Build it again, with --overwrite.'
      )
    polygons, rle = coco_masks.read(
      entry['segmentation'],
      height=height,
      width=width,
      note=ignore,
      bad=ignore,
    )
    found.append(
      Annotation(
        id=int(entry.get('id', position)),
        part=part,
        polygons=polygons,
        rle=rle,
        entry=dict(entry),
      )
    )
  return tuple(found)


def of_mask(mask: np.ndarray) -> tuple[Annotation, ...]:
  """Returns one region for each part of a mask, uint8 (H, W)."""
  return tuple(
    Annotation(
      id=int(part),
      part=int(part),
      polygons=(),
      rle=runs(mask == part),
      entry={},
    )
    for part in np.unique(mask[mask > 0])
  )


def runs(pixels: np.ndarray) -> Rle:
  """Returns the run lengths of a mask: bool (height, width)."""
  height, width = pixels.shape
  flat = pixels.ravel(order='F')
  changes = np.flatnonzero(np.diff(flat, prepend=False))
  counts = np.diff(changes, prepend=0, append=flat.size)
  return Rle(height=height, width=width, counts=counts.astype(np.int64))


def repaint(
  found: Sequence[Annotation], record: ClassRecord, height: int, width: int
) -> np.ndarray:
  """Returns the part mask of regions, painted by their class's containment.

  The mask is uint8 (height, width) of local indices.
  """
  image = ImageRecord(
    id=0, file_name='', width=width, height=height, annotations=tuple(found)
  )
  return painting.paint(image, record).mask
