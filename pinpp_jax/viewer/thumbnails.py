"""Small pictures for the grid: an image, and its parts to lie over it."""

from collections.abc import Sequence
import functools
import io

import numpy as np
from PIL import Image

from pinpp_jax.data import colours, views
from pinpp_jax.viewer.catalogue import Picture

SIDE = 240  # Pixels of the longer side, at most.
_EDGE = 255  # Palette entry of the lines between parts.


def size(shape: tuple[int, int]) -> tuple[int, int]:
  """Returns (width, height) of an image's small picture."""
  height, width = shape
  factor = min(1.0, SIDE / max(shape))
  return max(1, round(width * factor)), max(1, round(height * factor))


def photograph(picture: Picture, name: str) -> bytes:
  """Returns the image as a small JPEG; grey where there is no image.

  Raises:
    UserError: the image cannot be decoded.
  """
  if picture.image is None:
    image = Image.new('RGB', size(picture.shape), (214, 218, 223))
  else:
    small = size(picture.shape)
    image = views.decode(picture.image, name, small)
    image = image.resize(small, Image.Resampling.BICUBIC)
  buffer = io.BytesIO()
  image.save(buffer, 'JPEG', quality=85)
  return buffer.getvalue()


def parts(picture: Picture, wanted: Sequence[int] = ()) -> bytes:
  """Returns the image's parts as a PNG of the same size, clear elsewhere.

  What was predicted is shown, or else what people drew.

  Args:
    picture: The image.
    wanted: Local indices of the only parts to show; all if empty.
  """
  mask = picture.true if picture.predicted is None else picture.predicted
  if mask is None:
    mask = np.zeros((1, 1), np.uint8)
  if wanted:
    mask = np.where(np.isin(mask, wanted), mask, 0).astype(np.uint8)
  grid = Image.fromarray(mask).resize(
    size(picture.shape), Image.Resampling.NEAREST
  )
  cells = np.array(grid)
  edge = np.zeros(cells.shape, bool)
  edge[1:] |= cells[1:] != cells[:-1]
  edge[:, 1:] |= cells[:, 1:] != cells[:, :-1]
  cells[edge] = _EDGE
  shown = Image.fromarray(cells)
  shown.putpalette(_palette())
  buffer = io.BytesIO()
  shown.save(buffer, 'PNG', transparency=0, compress_level=1)
  return buffer.getvalue()


@functools.cache
def _palette() -> bytes:
  codes = [colours.colour(part)[1:] for part in range(1, _EDGE)]
  return bytes.fromhex(f'000000{"".join(codes)}ffffff')
