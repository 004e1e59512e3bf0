"""A region in the notation of COCO."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from pinpp_jax.data.release.records import Annotation, Rle

# Run lengths as pycocotools holds them, with counts as bytes or as text.
Runs = Any


def segmentation(region: Annotation) -> list[list[float]] | Runs:
  """Returns a region's polygons, or its run lengths as COCO compresses them."""
  if region.rle is None:
    return [polygon.ravel().tolist() for polygon in region.polygons]
  rle = region.rle
  return _text(runs(region, rle.height, rle.width))


def runs(region: Annotation, height: int, width: int) -> Runs:
  """Returns a region's pixels as run lengths."""
  if region.rle is not None:
    return coco.frPyObjects(_plain(region.rle), height, width)
  flat = [polygon.ravel().tolist() for polygon in region.polygons]
  return coco.merge(coco.frPyObjects(flat, height, width))


def of_pixels(pixels: np.ndarray) -> Runs:
  """Returns a mask's run lengths: bool (height, width)."""
  return _text(coco.encode(np.asfortranarray(pixels, np.uint8)))


def union(regions: Sequence[Annotation], height: int, width: int) -> np.ndarray:
  """Returns the pixels that some region covers: bool (height, width)."""
  found = [runs(region, height, width) for region in regions]
  if not found:
    return np.zeros((height, width), np.bool_)
  return coco.decode(coco.merge(found)).astype(np.bool_)


def area(encoded: Runs) -> int:
  """Returns how many pixels there are."""
  return int(coco.area(encoded))


def box(encoded: Runs) -> list[float]:
  """Returns the smallest rectangle around all pixels: x, y, width, height."""
  return coco.toBbox(encoded).tolist()


def _plain(rle: Rle) -> Runs:
  return {'size': [rle.height, rle.width], 'counts': rle.counts.tolist()}


def _text(encoded: Runs) -> Runs:
  """Returns run lengths as JSON can hold them."""
  return {'size': list(encoded['size']), 'counts': encoded['counts'].decode()}
