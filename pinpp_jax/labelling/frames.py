"""Frames: resizing and padding of images, and resampling of predictions.

An image keeps its aspect ratio. It is resized, perhaps mirrored, and padded at
the right and at the bottom, so that images of many sizes share few shapes.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np
from PIL import Image

# Colour of the padding: ImageNet's mean.
FILL = (124, 116, 104)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
  """An image's form as a network's input; sizes are (width, height) in pixels.

  Attributes:
    size: Size of the file.
    resized: Size of the image in the frame.
    padded: Size of the frame.
    flip: Whether the image is mirrored left to right.
  """

  size: tuple[int, int]
  resized: tuple[int, int]
  padded: tuple[int, int]
  flip: bool = False


def fit(
  size: tuple[int, int], side: int, *, multiple: int, max_aspect: float
) -> Frame:
  """Returns the frame in which an image's shorter side is `side` pixels.

  Args:
    size: (width, height) of the file.
    side: Shorter side in the frame.
    multiple: The frame's sides are multiples of this, and not less than `side`.
    max_aspect: The longer side is at most this many times `side`; the shorter
      side of a longer image is less than `side`.
  """
  factor = min(side / min(size), max_aspect * side / max(size))
  width, height = (max(1, round(length * factor)) for length in size)
  up = lambda length: -(-max(length, side) // multiple) * multiple
  return Frame(
    size=size, resized=(width, height), padded=(up(width), up(height))
  )


def frames(
  size: tuple[int, int],
  *,
  image_size: int,
  scales: Sequence[float],
  flip: bool,
  multiple: int,
  max_aspect: float,
) -> tuple[Frame, ...]:
  """Returns all frames of an image: every scale, then all of them mirrored.

  Args:
    size: (width, height) of the file.
    image_size: Shorter side at scale 1.
    scales: Factors of the shorter side.
    flip: Whether to add mirrored frames.
    multiple: See `fit`.
    max_aspect: See `fit`.
  """
  plain = [
    fit(
      size, round(image_size * scale), multiple=multiple, max_aspect=max_aspect
    )
    for scale in scales
  ]
  mirrored = [dataclasses.replace(one, flip=True) for one in plain]
  return tuple(plain + mirrored if flip else plain)


def pixels(image: Image.Image, frame: Frame) -> np.ndarray:
  """Returns the pixels of a frame: uint8 (height, width, 3), padded."""
  if frame.resized != image.size:
    image = image.resize(frame.resized, Image.Resampling.BICUBIC)
  shown = np.asarray(image)[:, :: -1 if frame.flip else 1]
  width, height = frame.padded
  filled = np.empty((height, width, 3), np.uint8)
  filled[:] = FILL
  filled[: shown.shape[0], : shown.shape[1]] = shown
  return filled


def sample(cells: np.ndarray, frame: Frame) -> np.ndarray:
  """Returns a network's output at the pixels of the file, bilinearly.

  Args:
    cells: float32 (h, w, c), the output over the whole frame; a value belongs
      to its cell's centre. Beyond the outermost centres the outermost value is
      repeated.
    frame: The network's input.

  Returns:
    float32 (c, height, width), mirrored back.
  """
  (width, height), (columns, rows) = frame.size, frame.resized
  cell_rows = frame.padded[1] / cells.shape[0]
  cell_columns = frame.padded[0] / cells.shape[1]
  low, high, share = _places(width, columns / cell_columns)
  if frame.flip:
    low, high, share = low[::-1], high[::-1], share[::-1]
  planes = np.ascontiguousarray(np.moveaxis(cells, -1, 0))
  planes = _lerp(planes, low, high, share, axis=2)
  return _lerp(planes, *_places(height, rows / cell_rows), axis=1)


def _places(
  length: int, cells: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the cells before and after each pixel of a line, and the fraction.

  Args:
    length: Pixels of the line.
    cells: Number of cells that it covers; the last may be covered in part.
  """
  place = (np.arange(length) + 0.5) * (cells / length) - 0.5
  place = np.clip(place, 0, max(np.ceil(cells) - 1, 0))
  low = place.astype(np.int64)
  high = np.minimum(low + 1, max(int(np.ceil(cells)) - 1, 0))
  return low, high, (place - low).astype(np.float32)


def _lerp(
  values: np.ndarray,
  low: np.ndarray,
  high: np.ndarray,
  share: np.ndarray,
  axis: int,
) -> np.ndarray:
  share = share.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
  first, result = (np.take(values, i, axis) for i in (low, high))
  result -= first
  result *= share
  result += first
  return result
