"""Typed records of a PartImageNet++ release: class, image, annotation."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rle:
  """A run-length mask: runs down the columns, background first.

  `counts` holds the lengths of the runs as int64; they add up to height times
  width.
  """

  height: int
  width: int
  counts: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotation:
  """One annotated region of one part.

  `part` is the local index, 1..n. `polygons` are (N, 2) float64 arrays of x, y
  in pixels of the file; their union is the region, together with `rle` where a
  release stores one. `entry` is the COCO entry as it was read.
  """

  id: int
  part: int
  polygons: tuple[np.ndarray, ...]
  rle: Rle | None
  entry: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageRecord:
  """One annotated image. `file_name` is '<wnid>/<wnid>_<n>.JPEG'."""

  id: int
  file_name: str
  width: int
  height: int
  annotations: tuple[Annotation, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassRecord:
  """One class: its parts in the order of the file, and its images.

  `category_ids[i]` is the id of part i + 1 in the class's file, None if that is
  not known; `parents[i]` are the local indices of the parts that contain it.
  """

  wnid: str
  object_name: str
  part_names: tuple[str, ...]
  generic_names: tuple[str, ...]
  category_ids: tuple[int | None, ...]
  parents: tuple[tuple[int, ...], ...]
  images: tuple[ImageRecord, ...]

  def part_counts(self) -> np.ndarray:
    """Returns how many annotations each part has: int64 (n,)."""
    parts = [a.part - 1 for image in self.images for a in image.annotations]
    return np.bincount(parts, minlength=len(self.part_names)).astype(np.int64)
