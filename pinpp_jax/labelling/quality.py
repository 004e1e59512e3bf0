"""Scores of labels against true masks.

Images are compared at their own size with known class, as the labels are made.
Scores have the names and definitions of `evals.segmentation`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from pinpp_jax.data import views
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read.sources import Chosen, Recorded, Source
from pinpp_jax.errors import UserError
from pinpp_jax.evals.segmentation import counts
from pinpp_jax.labelling.labeller import Labelled

GROUPS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
  """One image whose truth is known.

  Attributes:
    place: Position in the source it came from.
    file_name: '<wnid>/<file>'.
    label: Class index.
    confidence: Of the label, see `confidence.Label`.
    truth: The true part mask as a PNG of local indices.
    predicted: The label, likewise.
    table: int64 (1, 3, 1 + n), see `segmentation.counts`, of local indices.
  """

  place: int
  file_name: str
  label: int
  confidence: float
  truth: bytes
  predicted: bytes
  table: np.ndarray

  @property
  def miou(self) -> float:
    """Mean IoU of this image's parts, true or predicted."""
    return _miou(self.table)


def annotated(
  source: Recorded,
  label: Callable[[Source], list[Labelled]],
  block: int,
  limit: int = 0,
) -> Iterator[Compared]:
  """Labels annotated images and compares the labels with their masks.

  Args:
    source: A split of the data set.
    label: The labeller.
    block: Images labelled at once.
    limit: Only so many images, from all over the split; 0 is all.
  """
  number = min(limit or len(source), len(source))
  chosen = [i * len(source) // number for i in range(number)]
  for start in range(0, number, block):
    places = chosen[start : start + block]
    found = label(Chosen(source, places))
    for place, one in zip(places, found, strict=True):
      truth = one.example['part_mask']
      if one.part_mask is not None and truth is not None:
        yield compare(
          source.labels,
          place=place,
          file_name=one.example['file_name'],
          label=one.example['label'],
          confidence=one.confidence,
          truth=truth,
          predicted=one.part_mask,
        )


def written(source: Recorded, truth: pathlib.Path) -> Iterator[Compared]:
  """Compares finished labels with masks `<wnid>/<stem>.png` in a folder.

  Images without a mask are left out.

  Raises:
    UserError: If a mask does not fit its image.
  """
  for place in range(len(source)):
    name = source.file_name(place)
    path = (truth / name).with_suffix('.png')
    if not path.is_file():
      continue
    example = source[place]
    yield compare(
      source.labels,
      place=place,
      file_name=name,
      label=example['label'],
      confidence=source.confidence(place)[0],
      truth=path.read_bytes(),
      predicted=example['part_mask'] or b'',
    )


def compare(
  labels: LabelTable,
  *,
  file_name: str,
  label: int,
  truth: bytes,
  predicted: bytes,
  **fields: Any,
) -> Compared:
  """Counts the pixels of one image.

  Raises:
    UserError: If the true mask does not fit the image.
  """
  true, drawn = (views.decode_mask(m, file_name) for m in (truth, predicted))
  parts = int(labels.part_counts[label])
  if true.shape != drawn.shape or true.max() > parts:
    raise UserError(
      f'The true mask of {file_name} ({true.shape[1]} x {true.shape[0]},'
      f' indices up to {true.max()}) does not fit its image ({drawn.shape[1]} x'
      f' {drawn.shape[0]}) and class ({parts} parts).'
    )
  table = np.zeros((1, 3, 1 + parts), np.int64)
  counts.count(table, true[None], drawn[None], np.ones((1, 1), np.int64))
  return Compared(
    file_name=file_name,
    label=label,
    truth=truth,
    predicted=predicted,
    table=table,
    **fields,
  )


def scores(found: Sequence[Compared], labels: LabelTable) -> dict[str, Any]:
  """Returns the scores of some images, as plain data.

  `images`; the means of `_overall`; `deciles`, tenths of the images by
  increasing confidence, each with its mean, least and largest confidence and
  part mIoU; `classes`, by increasing part mIoU.
  """
  ordered = sorted(found, key=lambda one: (one.confidence, one.file_name))
  groups = np.array_split(np.arange(len(ordered)), GROUPS)
  return {
    'images': len(found),
    **_overall(found, labels),
    'deciles': [
      {'decile': i + 1} | _group([ordered[j] for j in group], labels)
      for i, group in enumerate(groups)
      if len(group)
    ],
    'classes': classes(found, labels),
  }


def classes(
  found: Iterable[Compared], labels: LabelTable
) -> list[dict[str, Any]]:
  """Returns the scores of each class with images, the worst class first."""
  of_class: dict[int, list[Compared]] = {}
  for one in found:
    of_class.setdefault(one.label, []).append(one)
  rows = []
  for label, some in of_class.items():
    table = np.sum([one.table for one in some], axis=0)
    rows.append(
      {
        'wnid': labels.wnids[label],
        'name': labels.object_names[label],
        'images': len(some),
        'mean_confidence': float(np.mean([one.confidence for one in some])),
        'part_miou_known': _miou(table),
        'pixel_accuracy_known_bg': float(counts.pixel_accuracy(table)[0]),
      }
    )
  return sorted(rows, key=lambda row: (row['part_miou_known'], row['wnid']))


def _group(found: Sequence[Compared], labels: LabelTable) -> dict[str, Any]:
  confidence = [one.confidence for one in found]
  return {
    'images': len(found),
    'mean_confidence': float(np.mean(confidence)),
    'least_confidence': min(confidence),
    'largest_confidence': max(confidence),
    'part_miou_known': _overall(found, labels)['part_miou_known'],
  }


def _overall(found: Sequence[Compared], labels: LabelTable) -> dict[str, float]:
  """Returns the scores over the pixels of all images together."""
  table = np.zeros((1, 3, labels.num_parts + 1), np.int64)
  for one in found:
    ids = labels.candidates[one.label, : one.table.shape[2]]
    table[:, :, ids] += one.table
  objects = np.repeat(np.arange(labels.num_classes), labels.part_counts) + 1
  per_object = counts.mean_iou_per_object(table, np.concatenate([[0], objects]))
  return {
    'part_miou_known': _miou(table),
    'part_miou_known_bg': float(counts.mean_iou(table)[0]),
    'part_miou_known_per_object': float(per_object[0]),
    'pixel_accuracy_known': float(counts.pixel_accuracy(table[:, :, 1:])[0]),
    'pixel_accuracy_known_bg': float(counts.pixel_accuracy(table)[0]),
  }


def _miou(table: np.ndarray) -> float:
  """Returns the mean IoU over parts, background left out."""
  return float(counts.mean_iou(table[:, :, 1:])[0])
