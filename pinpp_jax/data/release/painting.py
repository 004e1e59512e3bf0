"""Paints annotations into one part mask per image, and packs it as PNG.

The rule, pixel by pixel: of the annotations that cover a pixel, those whose
part contains (`including/`, transitively) another covering part give way; of
the rest the one with the smallest mask wins. So the most specific part is seen
whatever the order of the file. Polygons rasterise as pycocotools does it.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from pycocotools import mask as coco

from pinpp_jax.data.release import nesting
from pinpp_jax.data.release.records import (
  Annotation,
  ClassRecord,
  ImageRecord,
  Rle,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Painted:
  """One painted image.

  `mask` is uint8 (height, width) with the local index, 0 background.
  `undeclared` counts pixels covered by two parts of which neither contains the
  other; `vanished` holds the local indices of parts that were annotated but
  cannot be seen; `empty` the ids of annotations that cover no pixel.
  """

  mask: np.ndarray
  undeclared: int
  vanished: tuple[int, ...]
  empty: tuple[int, ...]


def rasterise(annotation: Annotation, height: int, width: int) -> np.ndarray:
  """Returns the pixels of an annotation: bool (height, width)."""
  mask = np.zeros((height, width), np.bool_)
  if annotation.polygons:
    flat = [polygon.ravel().tolist() for polygon in annotation.polygons]
    runs = coco.merge(coco.frPyObjects(flat, height, width))
    mask |= coco.decode(runs).astype(np.bool_)
  if annotation.rle is not None:
    mask |= decode_rle(annotation.rle)
  return mask


def decode_rle(rle: Rle) -> np.ndarray:
  """Returns the pixels of a run-length mask: bool (height, width)."""
  values = np.arange(len(rle.counts)) % 2 == 1
  pixels = np.repeat(values, rle.counts)
  return pixels.reshape((rle.height, rle.width), order='F')


def paint(image: ImageRecord, record: ClassRecord) -> Painted:
  """Returns an image's part mask, painted with its class's containments."""
  shape = (image.height, image.width)
  containers = nesting.ancestors(record.parents)
  layers, empty = [], []
  unions: dict[int, np.ndarray] = {}
  for annotation in image.annotations:
    pixels = rasterise(annotation, *shape)
    area = int(pixels.sum())
    if not area:
      empty.append(annotation.id)
      continue
    part = annotation.part
    layers.append((area, record.part_names[part - 1], part, pixels))
    unions[part] = unions[part] | pixels if part in unions else pixels
  # Contained parts first cut their containers; after that only area matters.
  # Equal areas are decided by name, which no order of a file can change.
  mask = np.zeros(shape, np.uint8)
  layers.sort(key=lambda layer: (-layer[0], layer[1]))
  for _, _, part, pixels in layers:
    visible = pixels
    for other, union in unions.items():
      if part in containers[other - 1]:
        visible = visible & ~union
    mask[visible] = part
  both = _shared(unions, containers)
  seen = np.bincount(mask.ravel(), minlength=len(record.part_names) + 1)
  return Painted(
    mask=mask,
    undeclared=0 if both is None else int(both.sum()),
    vanished=tuple(part for part in sorted(unions) if not seen[part]),
    empty=tuple(empty),
  )


def shared(image: ImageRecord, record: ClassRecord) -> np.ndarray:
  """Returns the pixels that unrelated parts share: bool (height, width)."""
  shape = (image.height, image.width)
  unions: dict[int, np.ndarray] = {}
  for annotation in image.annotations:
    pixels, part = rasterise(annotation, *shape), annotation.part
    unions[part] = unions[part] | pixels if part in unions else pixels
  found = _shared(unions, nesting.ancestors(record.parents))
  return np.zeros(shape, np.bool_) if found is None else found


def _shared(
  unions: dict[int, np.ndarray], containers: Sequence[frozenset[int]]
) -> np.ndarray | None:
  """Returns the pixels that two unrelated parts cover; None if no two are."""
  found = None
  parts = sorted(unions)
  for i, one in enumerate(parts):
    for other in parts[i + 1 :]:
      if one in containers[other - 1] or other in containers[one - 1]:
        continue
      both = unions[one] & unions[other]
      found = both if found is None else found | both
  return found
