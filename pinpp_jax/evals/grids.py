"""Resizing of grids of cells over an image."""

import jax
import jax.numpy as jnp
import numpy as np


def largest(logits: jax.Array, size: tuple[int, ...]) -> jax.Array:
  """Returns (B, *size) int32: the channel with the largest logit, per cell.

  Logits (B, h, w, C) of another size are interpolated first, bilinearly and
  without antialiasing: torch's `interpolate(mode='bilinear',
  align_corners=False)`. The first of equal logits is taken.
  """
  if logits.shape[1:3] == size:
    return logits.argmax(-1).astype(jnp.int32)
  left, right, across = _neighbours(logits.shape[2], size[1])
  across = across[None, :, None]

  # A row at a time: with thousands of parts, the interpolated logits of whole
  # images are larger than an accelerator's memory.
  def row(position):
    above, below, down = position
    x = _between(logits[:, above], logits[:, below], down)
    x = _between(x[:, left], x[:, right], across)
    return x.argmax(-1).astype(jnp.int32)

  rows = jax.lax.map(row, _neighbours(logits.shape[1], size[0]))
  return jnp.moveaxis(rows, 0, 1)


def _between(x: jax.Array, y: jax.Array, fraction: jax.Array) -> jax.Array:
  wide = jnp.promote_types(x.dtype, jnp.float32)
  fraction = fraction.astype(wide)
  return (1 - fraction) * x.astype(wide) + fraction * y.astype(wide)


def _neighbours(old: int, new: int) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns (new,) each: the cells before and after, and the fraction."""
  position = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
  before = np.floor(position).astype(np.int32)
  # The last centre has no neighbour after it and is its own neighbour.
  after = np.minimum(before + 1, old - 1)
  return jnp.array(before), jnp.array(after), jnp.array(position - before)


def nearest(grid: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
  """Returns (N, *size): an (N, h, w) grid sampled at the new cells' centres.

  For a larger size this is nearest-neighbour resizing.
  """
  rows, columns = (
    (2 * np.arange(new) + 1) * old // (2 * new)
    for old, new in zip(grid.shape[1:], size, strict=True)
  )
  return grid[:, rows[:, None], columns]


def at_eighth_pixels(
  grid: np.ndarray, image_size: tuple[int, ...]
) -> np.ndarray:
  """Returns (N, H // 8, W // 8): an (N, h, w) grid at pixels 8 i + 4.

  Those are the centres of the 8 x 8 pixel cells that classifiers are labelled
  by. A grid cell covers H / h x W / w pixels.

  Args:
    grid: Any values, at least one cell per 8 pixels.
    image_size: (H, W) of the images, in pixels.
  """
  rows, columns = (
    (8 * np.arange(pixels // 8) + 4) * cells // pixels
    for cells, pixels in zip(grid.shape[1:], image_size, strict=True)
  )
  return grid[:, rows[:, None], columns]
