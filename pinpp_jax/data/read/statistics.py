"""Counts and sizes of a part data set, such as the tables of its paper show.

A release and the data set that is built from it give the same numbers.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import functools

import numpy as np
from pycocotools import mask as coco
import tensorflow_datasets as tfds

from pinpp_jax.data import labels
from pinpp_jax.data import masks as masks_lib
from pinpp_jax.data.labels import LabelTable, Part
from pinpp_jax.data.read import annotated, open_any, sources
from pinpp_jax.data.release import concepts, painting
from pinpp_jax.data.release.findings import Findings
from pinpp_jax.data.release.reader import Release
from pinpp_jax.data.release.records import Annotation

Progress = Callable[[Sequence], Iterable]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
  """The counted areas of one image, as shares of the image.

  `areas` are those of its annotations as drawn, `visible` those of the class's
  parts in the painted mask (entry i is part i + 1).
  """

  wnid: str
  areas: np.ndarray
  visible: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassRow:
  """One class: its parts, images and annotations, and how large these are."""

  wnid: str
  object_name: str
  parts: int
  images: int
  masks: int
  masks_per_image: float
  median_area: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartRow:
  """One part.

  `images` is the number of images in which it is visible, `masks` the number of
  its annotations, `median_area` its median share of those images.
  """

  id: int
  wnid: str
  object_name: str
  part: str
  concept: str
  images: int
  masks: int
  median_area: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
  """All numbers of a data set; areas are shares of the image."""

  table: LabelTable
  images: tuple[Image, ...]

  @functools.cached_property
  def masks_per_image(self) -> np.ndarray:
    """The number of annotations of each image: int64 (N,)."""
    return np.array([len(image.areas) for image in self.images], np.int64)

  @functools.cached_property
  def parts_per_image(self) -> np.ndarray:
    """The number of visible parts of each image: int64 (N,)."""
    return np.array([(i.visible > 0).sum() for i in self.images], np.int64)

  @functools.cached_property
  def areas(self) -> np.ndarray:
    """The share of its image that each annotation covers: float64 (M,)."""
    return np.concatenate([np.empty(0), *(i.areas for i in self.images)])

  @functools.cached_property
  def of_class(self) -> dict[str, list[Image]]:
    """The images of each class."""
    result: dict[str, list[Image]] = {wnid: [] for wnid in self.table.wnids}
    for image in self.images:
      result[image.wnid].append(image)
    return result

  def totals(self) -> dict[str, int | float]:
    """Returns the numbers of the whole data set, by name."""
    parts, count = self.table.parts, max(1, len(self.images))
    covered = [float(image.visible.sum()) for image in self.images]
    return {
      'classes': self.table.num_classes,
      'images': len(self.images),
      'parts': len(parts),
      'masks': len(self.areas),
      'parts per class': len(parts) / max(1, self.table.num_classes),
      'masks per image': len(self.areas) / count,
      'visible parts per image': self.parts_per_image.sum() / count,
      'median area of a mask': _median(self.areas),
      'share of an image covered by parts': sum(covered) / count,
      'concepts': len(concepts.of_table(self.table)),
      'whole-object parts': sum(map(concepts.whole, parts)),
      'parts inside other parts': sum(bool(part.parent) for part in parts),
    }

  def class_rows(self) -> list[ClassRow]:
    """Returns one row per class, in the order of the table."""
    names = zip(self.table.wnids, self.table.object_names, strict=True)
    rows = []
    for index, (wnid, name) in enumerate(names):
      images = self.of_class[wnid]
      areas = np.concatenate([np.empty(0), *(image.areas for image in images)])
      rows.append(
        ClassRow(
          wnid=wnid,
          object_name=name,
          parts=int(self.table.part_counts[index]),
          images=len(images),
          masks=len(areas),
          masks_per_image=len(areas) / max(1, len(images)),
          median_area=_median(areas),
        )
      )
    return rows

  def part_rows(self) -> list[PartRow]:
    """Returns one row per part, in the order of the table."""
    # A set of pseudo labels has the label table of another data set, whose
    # counts of annotations are not its own.
    own = sum(part.count for part in self.table.parts) == len(self.areas)
    rows = []
    for part in self.table.parts:
      images = self.of_class[part.wnid]
      shares = np.array([i.visible[part.local_index - 1] for i in images])
      rows.append(
        PartRow(
          id=part.global_id,
          wnid=part.wnid,
          object_name=part.object_name,
          part=part.name,
          concept=concepts.of_part(part),
          images=int((shares > 0).sum()),
          masks=part.count if own else 0,
          median_area=_median(shares[shares > 0]),
        )
      )
    return rows


def _median(values: np.ndarray) -> float:
  return float(np.median(values)) if len(values) else 0.0


def of_release(release: Release, progress: Progress = iter) -> Statistics:
  """Returns the numbers of a release; no image is needed.

  Args:
    release: its `findings` decide whether broken entries are skipped.
    progress: wraps the classes to show progress, as tqdm does.
  """
  images: list[Image] = []
  parts: list[Part] = []
  objects: list[str] = []
  for wnid in progress(release.wnids):
    record = release.load(wnid)
    objects.append(record.object_name)
    parts += labels.class_parts(record, len(parts) + 1)
    for image in record.images:
      size = (image.height, image.width)
      areas = [area(annotation, *size) for annotation in image.annotations]
      painted = painting.paint(image, record).mask
      count = len(record.part_names)
      images.append(_image(wnid, painted, count, areas))
  table = LabelTable(
    wnids=release.wnids, object_names=tuple(objects), parts=tuple(parts)
  )
  return Statistics(table=table, images=tuple(images))


def of_data_set(
  folder: str, splits: Sequence[str] = (), progress: Progress = iter
) -> Statistics:
  """Returns the numbers of a built data set.

  Args:
    folder: of one version.
    splits: names of splits, in TFDS's notation; all if empty.
    progress: wraps the records to show progress, as tqdm does.
  """
  names = splits or sorted(tfds.builder_from_directory(folder).info.splits)
  parts = [sources.Recorded(dataset=folder, split=name) for name in names]
  pairs = [(source, i) for source in parts for i in range(len(source))]
  images = tuple(_recorded(*pair) for pair in progress(pairs))
  return Statistics(table=parts[0].labels, images=images)


def _recorded(source: sources.Recorded, index: int) -> Image:
  """Returns the areas in one record."""
  example, table = source[index], source.labels
  count = int(table.part_counts[table.class_index(example['wnid'])])
  if example['part_mask'] is None:
    empty = np.zeros((1, 1), np.uint8)
    return _image(example['wnid'], empty, count, [])
  painted = masks_lib.decode(example['part_mask'])
  record = labels.class_record(table, example['wnid'])
  drawn = annotated.regions(source.annotations(index), record, *painted.shape)
  areas = [area(annotation, *painted.shape) for annotation in drawn]
  return _image(example['wnid'], painted, count, areas)


def _image(
  wnid: str, painted: np.ndarray, parts: int, areas: Sequence[int]
) -> Image:
  seen = np.bincount(painted.ravel(), minlength=parts + 1)[1 : parts + 1]
  return Image(
    wnid=wnid,
    areas=np.array(areas, np.float64) / painted.size,
    visible=seen / painted.size,
  )


def area(annotation: Annotation, height: int, width: int) -> int:
  """Returns how many pixels an annotation covers."""
  if annotation.rle is not None or not annotation.polygons:
    return int(painting.rasterise(annotation, height, width).sum())
  flat = [polygon.ravel().tolist() for polygon in annotation.polygons]
  return int(coco.area(coco.merge(coco.frPyObjects(flat, height, width))))


def load(
  source: str, data_dir: str = '', progress: Progress = iter
) -> Statistics:
  """Returns the numbers of a release folder or of a built data set.

  Args:
    source: a release folder, or a data set as in `open_any.data_set`.
    data_dir: the folder of built data sets.
    progress: wraps classes or records to show progress, as tqdm does.

  Raises:
    UserError: neither was found.
  """
  if open_any.is_release(source):
    return of_release(Release(source, Findings(skip_bad=True)), progress)
  folder = open_any.data_set(source, data_dir)
  return of_data_set(str(folder), progress=progress)
