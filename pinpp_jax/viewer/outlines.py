"""Part masks and polygons as paths that a browser can draw (SVG)."""

from collections.abc import Sequence
import dataclasses
import io

import numpy as np
from PIL import Image

from pinpp_jax.data.mini import trace
from pinpp_jax.data.release import painting
from pinpp_jax.data.release.records import Annotation

_DIGITS = 1  # Of a polygon's coordinates: a tenth of a pixel.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Region:
  """One annotated outline.

  `part` is the local index, `path` draws the outline, `pixels` is bool (height,
  width).
  """

  part: int
  path: str
  pixels: np.ndarray


def shape_of(image: bytes | None) -> tuple[int, int]:
  """Returns (height, width) of an image file; a square where there is none."""
  if image is None:
    return 1, 1
  with Image.open(io.BytesIO(image)) as opened:
    return opened.height, opened.width


def of_mask(mask: np.ndarray) -> dict[int, str]:
  """Returns a path around the pixels of each part in a mask.

  A path runs along the edges of pixels, around holes the other way, so that
  SVG's usual rule fills exactly the part's pixels.
  """
  return {
    int(part): of_pixels(mask == part) for part in np.unique(mask) if part
  }


def of_pixels(pixels: np.ndarray) -> str:
  """Returns the same for bool (height, width); '' if all are False."""
  outlines, holes = trace.loops(pixels)
  return ''.join(_walk(loop) for loop in outlines + holes)


def _walk(loop: Sequence[tuple[int, int]]) -> str:
  """Returns a closed walk in unit steps as a path of straight lines."""
  corners = np.array(loop)
  steps = np.roll(corners, -1, 0) - corners
  turns = np.flatnonzero((steps != np.roll(steps, 1, 0)).any(1))
  corners = corners[turns]
  words = [f'M{corners[0, 0]} {corners[0, 1]}']
  for dx, dy in (corners[1:] - corners[:-1]).tolist():
    words.append(f'h{dx}' if dx else f'v{dy}')
  return ''.join(words) + 'z'


def of_annotation(annotation: Annotation, shape: tuple[int, ...]) -> Region:
  """Returns an annotation's outline as it is stored, and its pixels."""
  pixels = painting.rasterise(annotation, *shape)
  path = ''.join(_polygon(polygon) for polygon in annotation.polygons)
  if annotation.rle is not None:
    path += of_pixels(painting.decode_rle(annotation.rle))
  return Region(part=annotation.part, path=path, pixels=pixels)


def _polygon(points: np.ndarray) -> str:
  words = (f'{x:.{_DIGITS}f} {y:.{_DIGITS}f}' for x, y in points.tolist())
  return f'M{"L".join(words)}z'.replace('.0', '')


def hidden(regions: Sequence[Region], mask: np.ndarray) -> np.ndarray:
  """Returns the pixels inside an outline that show another part: bool."""
  found = np.zeros(mask.shape, np.bool_)
  for region in regions:
    found |= region.pixels & (mask != region.part)
  return found
