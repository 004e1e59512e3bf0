"""The vision transformer of DINOv2, as an encoder with four features.

Dosovitskiy et al., arXiv:2010.11929; Oquab et al., arXiv:2304.07193.
"""

from collections.abc import Mapping
import functools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from pinpp_jax.errors import UserError
from pinpp_jax.models import layers, resnet

# Channels and blocks.
SIZES: Mapping[str, tuple[int, int]] = {'small': (384, 12), 'base': (768, 12)}

PATCH = 14  # Pixels a side.
HEAD = 64  # Channels of an attention head, in every published size.
BRANCH_SCALE = 1e-5  # Of the residual branches, at the start.

# Size of the four features, in cells per patch.
SCALES = (4, 2, 1, 0.5)


class Block(nn.Module):
  """Residual attention, then two residual linear layers per token.

  Attributes:
    heads: Of the attention.
    dtype: Of the computation; the softmax is float32.
  """

  heads: int
  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, N, C) to the same shape."""
    batch, length, width = x.shape
    norm = functools.partial(layers.LayerNorm, dtype=self.dtype)
    linear = functools.partial(
      nn.Dense, kernel_init=layers.narrow_normal, dtype=self.dtype
    )
    y = linear(3 * width, name='qkv')(norm(name='norm1')(x))
    y = y.reshape(batch, length, 3, self.heads, -1)
    y = jax.nn.dot_product_attention(y[:, :, 0], y[:, :, 1], y[:, :, 2])
    y = linear(width, name='proj')(y.reshape(x.shape))
    x += self._scaled(y, 'gamma1')
    y = linear(4 * width, name='fc1')(norm(name='norm2')(x))
    y = linear(width, name='fc2')(layers.gelu(y))
    return x + self._scaled(y, 'gamma2')

  def _scaled(self, y: jax.Array, name: str) -> jax.Array:
    init = nn.initializers.constant(BRANCH_SCALE)
    gamma = self.param(name, init, y.shape[-1:])
    return y * gamma.astype(y.dtype).reshape(1, 1, -1)


class ViT(nn.Module, kw_only=True):
  """A plain vision transformer on patches of 14 pixels a side.

  Attributes:
    size: 'small' or 'base'.
    width: Channels; 0 is the published width.
    depth: Blocks, four or more; 0 is the published depth.
    heads: Of the attention; 0 is one for every 64 channels.
    grid: Patches per side for which the position embedding is stored; 37 is
      DINOv2's, 518 pixels. It is resized for images of other sizes.
    dtype: Of the computation, 'float32' or 'bfloat16'; parameters are float32.
    remat: Recompute blocks in the backward pass to save memory.
  """

  size: str = 'small'
  width: int = 0
  depth: int = 0
  heads: int = 0
  grid: int = 37
  dtype: str = 'float32'
  remat: bool = False

  def shape(self) -> tuple[int, int, int]:
    """Returns channels, blocks and heads.

    Raises:
      UserError: If a field has an invalid value.
    """
    if self.size not in SIZES:
      raise UserError(f'size={self.size!r} is not one of {[*SIZES]}.')
    width, depth = SIZES[self.size]
    width, depth = self.width or width, self.depth or depth
    heads = self.heads or max(width // HEAD, 1)
    if width % heads:
      raise UserError(f'heads={heads} does not divide width={width}.')
    if depth < len(SCALES):
      raise UserError(
        f'depth={depth} is less than {len(SCALES)}, the number of features.'
      )
    return width, depth, heads

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
    """Maps [0, 1] images to the features after four blocks, evenly spaced.

    Args:
      image: (B, H, W, 3) in [0, 1]; sides are resized bilinearly to the nearest
        multiples of 14.
      train: Ignored, so that all encoders are called alike.

    Returns:
      Four arrays (B, h, w, channels) in `dtype`: the patches' tokens, with the
      final normalisation, after a quarter, a half, three quarters and all of
      the blocks. Their grid is resized bilinearly to 4, 2, 1 and 1/2 (rounded
      up) times its sides: about 1/4 to 1/28 of the image's.

    Raises:
      UserError: If a field has an invalid value.
    """
    del train
    width, depth, heads = self.shape()
    block = nn.remat(Block) if self.remat else Block
    norm = layers.LayerNorm(dtype=self.dtype, name='norm')
    x, grid = self._tokens(image, width)
    wanted = [depth * (i + 1) // len(SCALES) for i in range(len(SCALES))]
    features = []
    for i in range(depth):
      x = block(heads=heads, dtype=self.dtype, name=f'block{i}')(x)
      if i + 1 in wanted:
        scale = SCALES[len(features)]
        patches = norm(x)[:, 1:].reshape(-1, *grid, width)
        features.append(_rescale(patches, scale))
    return tuple(features)

  def _tokens(
    self, image: jax.Array, width: int
  ) -> tuple[jax.Array, tuple[int, int]]:
    """Returns class and patch tokens, (B, 1 + h * w, C), and (h, w)."""
    x = _whole_patches(resnet.standardise(image))
    x = layers.Conv(
      width,
      size=PATCH,
      stride=PATCH,
      use_bias=True,
      dtype=self.dtype,
      name='patch_embed',
    )(x)
    batch, rows, columns, _ = x.shape
    grid = (rows, columns)
    init = nn.initializers.normal(1e-6)
    class_token = self.param('cls_token', init, (1, 1, width))
    shape = (1, 1 + self.grid**2, width)
    position = self.param('pos_embed', layers.narrow_normal, shape)
    if grid != (self.grid, self.grid):
      position = _at_grid(position, self.grid, grid)
    first = jnp.broadcast_to(class_token.astype(x.dtype), (batch, 1, width))
    x = jnp.concatenate([first, x.reshape(batch, -1, width)], 1)
    return x + position.astype(x.dtype), grid


def _whole_patches(image: jax.Array) -> jax.Array:
  """Resizes (B, H, W, C) to the nearest sides that are multiples of PATCH."""
  height, width = (
    max((side + PATCH // 2) // PATCH, 1) * PATCH for side in image.shape[1:3]
  )
  if (height, width) == image.shape[1:3]:
    return image
  return layers.resize(image, height, width)


def _at_grid(position: jax.Array, old: int, new: tuple[int, int]) -> jax.Array:
  """Resizes an embedding (1, 1 + old * old, C) to (1, 1 + h * w, C).

  Torch's antialiased bicubic interpolation. The first vector, that of the class
  token, has no position and is kept.
  """
  width = position.shape[-1]
  patches = position[:, 1:].reshape(1, old, old, width)
  patches = jax.image.resize(patches, (1, *new, width), 'bicubic')
  return jnp.concatenate([position[:, :1], patches.reshape(1, -1, width)], 1)


def _rescale(x: jax.Array, scale: float) -> jax.Array:
  """Resizes (B, H, W, C) to `scale` times its sides, rounded up."""
  if scale == 1:
    return x
  height, width = (math.ceil(side * scale) for side in x.shape[1:3])
  return layers.resize(x, height, width)
