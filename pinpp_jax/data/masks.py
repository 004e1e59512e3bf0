"""Part masks as 8-bit PNG files: 0 is background, 1, 2, ... the local parts."""

import io

import numpy as np
from PIL import Image

from pinpp_jax.errors import UserError


def encode(mask: np.ndarray) -> bytes:
  """Returns a part mask as an 8-bit grey PNG; equal masks, equal bytes.

  Grey, not palette: OpenCV and TensorFlow turn a palette into colours when they
  decode, and the indices would be lost without a word. Pillow reads both.

  Raises:
    UserError: the mask holds something else than indices 0..255.
  """
  if mask.ndim != 2 or mask.size == 0:
    raise UserError(f'a part mask has two dimensions, not shape {mask.shape}')
  if mask.min() < 0 or mask.max() > 255:
    raise UserError('a part mask holds 8 bits: indices 0..255 of one class')
  image = Image.fromarray(np.ascontiguousarray(mask, np.uint8))
  buffer = io.BytesIO()
  image.save(buffer, format='PNG', compress_level=6)
  return buffer.getvalue()


def decode(png: bytes) -> np.ndarray:
  """Returns the indices in a part mask's PNG: uint8 (height, width).

  Raises:
    UserError: the bytes are no 8-bit single-channel PNG.
  """
  try:
    with Image.open(io.BytesIO(png)) as image:
      if image.mode not in ('P', 'L'):
        raise UserError(f'part mask PNG has mode {image.mode}, not P or L')
      return np.array(image, np.uint8)
  except (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
  ) as error:
    raise UserError(f'part mask PNG cannot be read ({error})') from error


def palette() -> np.ndarray:
  """Returns 256 distinguishable colours for viewing, black first.

  Shape (256, 3), dtype uint8. The bits of the index go to the high bits of
  red, green and blue in turn, as in Pascal VOC, so that small indices lie far
  apart.
  """
  colours = np.zeros((256, 3), np.uint8)
  index = np.arange(256)
  for bit in range(8):
    channel, place = bit % 3, 7 - bit // 3
    colours[:, channel] |= (((index >> bit) & 1) << place).astype(np.uint8)
  return colours
