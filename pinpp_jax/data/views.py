"""Views of an image and of its part mask, in uint8 with Pillow.

A view is a rectangle of the file, resized, cut to a square and perhaps
mirrored. The same view is applied to the pixels and to the part mask, so both
stay aligned to the pixel. The pixels equal what torchvision's transforms give
on PIL images (crop first, then an antialiased bicubic resize), because every
published number of this field was made with those.
"""

from collections.abc import Sequence
import dataclasses
import io
import math

import numpy as np
from PIL import Image

from pinpp_jax.errors import DamagedError, UserError

CELL = 8  # Pixels along one side of a cell of the classifiers' label grid.


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
  """What part of a file is looked at, and how; lengths in pixels.

  Attributes:
    box: (left, top, width, height) of the rectangle cut from the file.
    resized: (width, height) the rectangle is resized to.
    corner: (left, top) of the square cut from the resized rectangle.
    size: Side of that square.
    flip: Whether the square is mirrored left to right.
  """

  box: tuple[int, int, int, int]
  resized: tuple[int, int]
  corner: tuple[int, int]
  size: int
  flip: bool


def check_size(image_size: int, cell: int = CELL) -> None:
  """Raises UserError unless the grids of networks and labels divide the image.

  Args:
    image_size: Side of a view in pixels.
    cell: Pixels along one side of a cell of the label grid.
  """
  if image_size < 32 or image_size % 32:
    raise UserError(
      f'image_size={image_size} is not a multiple of 32: the grids of a'
      ' network are 8, 16 and 32 times smaller than the image.'
    )
  if cell < 1 or image_size % cell:
    raise UserError(
      f'cell={cell} does not divide image_size={image_size}: labels lie on a'
      ' grid of square cells.'
    )


def decode(
  data: bytes, name: str, at_least: tuple[int, int] | None = None
) -> Image.Image:
  """Returns the picture in RGB as stored: no EXIF rotation.

  The format is told from the content, since ImageNet holds a PNG and CMYK
  files that are called .JPEG.

  Args:
    data: The file.
    name: For the message.
    at_least: (width, height) that are enough: a JPEG file may then be decoded
      at a fraction of its size, which is faster.

  Raises:
    DamagedError: If it cannot be read whole; the message holds `name`.
  """
  try:
    image = Image.open(io.BytesIO(data))
    if at_least:
      image.draft('RGB', at_least)
    image.load()
    # To its own mode it would be a copy.
    if image.mode == 'RGB':
      return image
    return eight_bits(image).convert('RGB')
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
    raise DamagedError(
      f'{name} ({len(data)} bytes) is not a readable image: {e}. Fetch the'
      ' file again and rebuild the data set.'
    ) from e


def eight_bits(image: Image.Image) -> Image.Image:
  """Returns a picture with 8 bits per channel; one of 16 bits is scaled.

  Pillow itself would cut off everything above 255.

  Raises:
    ValueError: If nothing says which value is white (32 bits, floats).
  """
  if not image.mode.startswith(('I', 'F')):
    return image
  sixteen = image.mode.startswith('I;16') or image.format in ('PNG', 'PPM')
  if image.mode.startswith('F') or not sixteen:
    raise ValueError(f'its mode {image.mode} does not say which value is white')
  values = np.asarray(image).astype(np.uint32)
  return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def decode_mask(data: bytes, name: str) -> np.ndarray:
  """Returns the local part index of each pixel, (height, width) uint8.

  Raises:
    DamagedError: If it is not an 8-bit picture of one channel.
  """
  try:
    mask = Image.open(io.BytesIO(data))
    if mask.mode not in ('L', 'P'):
      raise ValueError(f'it is of mode {mask.mode}, not 8 bits of one channel')
    return np.asarray(mask)
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
    raise DamagedError(f'The part mask of {name} is not readable: {e}.') from e


def random_box(
  rng: np.random.Generator,
  width: int,
  height: int,
  scale: Sequence[float] = (0.08, 1),
  ratio: Sequence[float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
  """Draws (left, top, width, height) as torchvision's RandomResizedCrop does.

  Area uniform in `scale` times the image's, aspect log-uniform in `ratio`. Ten
  draws that do not fit are answered with the largest central rectangle whose
  aspect is allowed.
  """
  low, high = ratio
  for _ in range(10):
    area = width * height * rng.uniform(scale[0], scale[1])
    aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
    w = round(math.sqrt(area * aspect))
    h = round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      top = int(rng.integers(height - h + 1))
      return int(rng.integers(width - w + 1)), top, w, h
  # Rounding 1 / 3 of a pixel may give 0 on images a few pixels wide.
  w, h = width, height
  if width / height < low:
    h = max(1, round(width / low))
  elif width / height > high:
    w = max(1, round(height * high))
  return (width - w) // 2, (height - h) // 2, w, h


def random_view(
  rng: np.random.Generator,
  size: tuple[int, int],
  image_size: int,
  *,
  scale: Sequence[float] = (0.08, 1),
  ratio: Sequence[float] = (3 / 4, 4 / 3),
  flip: float = 0.5,
) -> View:
  """Returns a training view of a file of `size` (width, height)."""
  return View(
    box=random_box(rng, *size, scale, ratio),
    resized=(image_size, image_size),
    corner=(0, 0),
    size=image_size,
    flip=bool(rng.random() < flip),
  )


def central_view(
  size: tuple[int, int], image_size: int, resize: float = 256 / 224
) -> View:
  """Returns the evaluation view of a file of `size` (width, height).

  The shorter side becomes `resize * image_size` pixels, then the centre is
  cut, with the rounding of torchvision's Resize and CenterCrop.
  """
  short, long = min(size), max(size)
  new_short = round(resize * image_size)
  new_long = int(new_short * long / short)
  resized = (
    (new_short, new_long)
    if size[0] <= size[1]
    else (
      new_long,
      new_short,
    )
  )
  return View(
    box=(0, 0, *size),
    resized=resized,
    # Python's rounding of halves to even, as CenterCrop has it.
    corner=(
      round((resized[0] - image_size) / 2),
      round((resized[1] - image_size) / 2),
    ),
    size=image_size,
    flip=False,
  )


def pixels(
  image: Image.Image,
  view: View,
  resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> np.ndarray:
  """Returns the view's pixels, (size, size, 3) uint8."""
  left, top, width, height = view.box
  # Cropping first keeps the filter inside the rectangle: `resize(box=)` would
  # let the pixels around it bleed into the border.
  if view.box != (0, 0, *image.size):
    image = image.crop((left, top, left + width, top + height))
  if view.resized != image.size:
    image = image.resize(view.resized, resample)
  x, y = view.corner
  if (view.size, view.size) != image.size:
    image = image.crop((x, y, x + view.size, y + view.size))
  # Pillow mirrors eight times as fast as numpy copies a mirrored view.
  if view.flip:
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  return np.asarray(image)


def nearest(length: int, resized: int) -> np.ndarray:
  """Returns the source pixel of each pixel of a line resized with NEAREST.

  Pillow walks along the line in steps of length / resized, adding them up; the
  cumulative sum repeats its rounding, which a product would not.
  """
  step = length / resized
  walk = np.cumsum(np.concatenate([[step / 2], np.full(resized - 1, step)]))
  return np.minimum(walk.astype(np.int64), length - 1)


def grid(
  mask: np.ndarray, view: View, cell: int = CELL, offset: int = CELL // 2
) -> np.ndarray:
  """Returns the view's label grid, (size / cell, size / cell), mask's dtype.

  Equals resizing the mask with Pillow's NEAREST to `view.resized`, cutting and
  mirroring it as the image, and taking rows and columns cell * i + offset.

  Args:
    mask: (height, width) of the whole file.
    view: As drawn for the image.
    cell: Pixels along one side of a cell; 1 labels every pixel.
    offset: Of the pixel in its cell: half a cell samples the centre, 0 the
      corner (what PyTorch's nearest interpolation takes).
  """
  left, top, width, height = view.box
  at = np.arange(offset, view.size, cell)
  rows = top + nearest(height, view.resized[1])[view.corner[1] + at]
  at = view.size - 1 - at if view.flip else at
  columns = left + nearest(width, view.resized[0])[view.corner[0] + at]
  return mask[np.ix_(rows, columns)]
