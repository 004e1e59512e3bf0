"""COCO segmentations: polygons and run lengths, read with suspicion."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pinpp_jax.data.release.records import Rle

# How many image sides a vertex may lie outside before the polygon is cut to a
# box around the image. The rasteriser cuts at the image itself, but its time
# and memory grow with the length of the outline.
_REACH = 4.0
# Numbers of polygons, pixels: beyond these sums would be inexact.
_FARTHEST = 1e12
# Pixels around a polygon: the rasteriser takes 80 bytes for each.
_LONGEST = 2**23
# Bits of a run's length: more than any image has pixels.
_LONGEST_RUN = 35


def read(
  segmentation: Any,
  *,
  height: int,
  width: int,
  note: Callable[[str], None],
  bad: Callable[[str, str], None],
) -> tuple[tuple[np.ndarray, ...], Rle | None]:
  """Returns a segmentation's usable polygons, (N, 2) float64, and its RLE.

  Args:
    segmentation: list of polygons, one flat polygon, or an RLE dict.
    height: of the image, pixels.
    width: of the image, pixels.
    note: called with the name of everything that was repaired.
    bad: called with the kind of what is wrong with a polygon that cannot be
      used, and its details.
  """
  if isinstance(segmentation, dict):
    note('RLE segmentation')
    return (), _rle(segmentation, height, width, bad)
  if not isinstance(segmentation, list):
    what = f'segmentation is a {type(segmentation).__name__}, not a list'
    bad('segmentation of an unknown form', what)
    return (), None
  if not segmentation:
    bad('empty segmentation', '')
    return (), None
  if all(_is_number(value) for value in segmentation):
    note('flat polygon list')
    segmentation = [segmentation]
  polygons = []
  for ring in segmentation:
    problem = _problem(ring)
    if problem:
      bad(*problem)
      continue
    polygon = np.asarray(ring, np.float64).reshape(-1, 2)
    size = np.array([[width, height]], np.float64)
    if np.any((polygon < 0) | (polygon > size)):
      note('polygon clipped at the image border')
      polygon = _near(polygon, size[0])
    steps = np.abs(polygon - np.roll(polygon, 1, axis=0)).max(axis=-1)
    if steps.sum() > _LONGEST:
      what = f'polygon whose outline has more than {_LONGEST:,} pixels'
      bad('polygon out of bounds', what)
    elif len(polygon):
      polygons.append(polygon)
  if len(segmentation) > 1:
    note('annotation with several polygons')
  return tuple(polygons), None


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _problem(ring: Any) -> tuple[str, str] | None:
  """Returns what keeps a ring from being a polygon, and its details."""
  if not isinstance(ring, list) or not all(_is_number(v) for v in ring):
    kind = 'polygon that is no list of numbers'
    return kind, 'polygon is not a list of numbers'
  if len(ring) < 6:
    what = f'polygon with {len(ring)} numbers (at least 6 are needed)'
    return 'polygon with too few numbers', what
  if len(ring) % 2:
    what = f'polygon with an odd count of {len(ring)} numbers'
    return 'polygon with an odd count of numbers', what
  try:
    numbers = np.asarray(ring, np.float64)
  except OverflowError:
    return 'polygon with a non-finite number', ''
  if not np.isfinite(numbers).all():
    return 'polygon with a non-finite number', ''
  if np.abs(numbers).max() > _FARTHEST:
    what = f'polygon with a number beyond {_FARTHEST:.0e}'
    return 'polygon out of bounds', what
  return None


def _near(polygon: np.ndarray, size: np.ndarray) -> np.ndarray:
  """Returns a polygon cut to the box a few image sides around the image.

  Polygons inside the box come back unchanged; the cut never shows in the image
  because the new edges run along the box. (Sutherland and Hodgman, 1974.)
  """
  low, high = -_REACH * size, (1 + _REACH) * size
  for axis in (0, 1):
    for sign, limit in ((1.0, low[axis]), (-1.0, -high[axis])):
      inside = sign * polygon[:, axis] >= limit
      if inside.all():
        continue
      polygon = _cut(polygon, sign * polygon[:, axis] - limit)
      if not len(polygon):
        return polygon
  return polygon


def _cut(polygon: np.ndarray, distance: np.ndarray) -> np.ndarray:
  """Returns the part of a polygon where the vertices' distance is >= 0."""
  points = []
  following = np.roll(polygon, -1, axis=0)
  for here, there, a, b in zip(
    polygon, following, distance, np.roll(distance, -1), strict=True
  ):
    if a >= 0:
      points.append(here)
    if (a >= 0) != (b >= 0):
      points.append(here + (there - here) * (a / (a - b)))
  return np.array(points, np.float64).reshape(-1, 2)


def _rle(
  value: dict[str, Any],
  height: int,
  width: int,
  bad: Callable[[str, str], None],
) -> Rle | None:
  """Returns a checked RLE, or None after saying what is wrong with it."""
  counts = value.get('counts')
  try:
    if isinstance(counts, str):
      runs = _uncompressed(counts)
    elif isinstance(counts, list) and all(_is_number(c) for c in counts):
      runs = [int(count) for count in counts]
    else:
      raise ValueError
    size = [int(side) for side in value['size']]
  except (KeyError, TypeError, ValueError, OverflowError):
    bad('RLE that cannot be read', '')
    return None
  if size != [height, width]:
    what = f'RLE of size {str(size)[:60]} in an image of size {[height, width]}'
    bad('RLE of another size than its image', what)
    return None
  if min(runs, default=-1) < 0 or sum(runs) != height * width:
    bad('RLE whose runs do not add up', '')
    return None
  return Rle(height=height, width=width, counts=np.array(runs, np.int64))


def _uncompressed(text: str) -> list[int]:
  """Returns the run lengths of COCO's compressed RLE string.

  Every number is a sequence of 5-bit groups, least first, a sixth bit saying
  that more follow, in printable characters from '0'; from the fourth on a
  number is the difference to the one before the last.
  """
  runs: list[int] = []
  number, shift = 0, 0
  for character in text:
    group = ord(character) - 48
    if not 0 <= group < 64:
      raise ValueError(text)
    number |= (group & 31) << shift
    shift += 5
    if group & 32:
      if shift > _LONGEST_RUN:
        raise ValueError('a run without end')
      continue
    if group & 16:
      number -= 1 << shift
    runs.append(number + (runs[-2] if len(runs) > 2 else 0))
    number, shift = 0, 0
  if shift:
    raise ValueError(text)
  return runs
