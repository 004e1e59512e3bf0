"""ConvNeXt, the convolutional network in the style of a transformer.

Liu et al., arXiv:2201.03545.
"""

from collections.abc import Mapping
import functools

from flax import linen as nn
import jax

from pinpp_jax.errors import UserError
from pinpp_jax.models import layers, resnet

# Blocks and channels of each of the four stages.
SIZES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
  'tiny': ((3, 3, 9, 3), (96, 192, 384, 768)),
  'small': ((3, 3, 27, 3), (96, 192, 384, 768)),
  'base': ((3, 3, 27, 3), (128, 256, 512, 1024)),
}

# The residual branches start small enough for deep networks to train.
BRANCH_SCALE = 1e-6


class Block(nn.Module):
  """Residual block: depthwise 7x7, then two linear layers per pixel.

  Attributes:
    dtype: Of the computation.
  """

  dtype: str

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) to the same shape."""
    width = x.shape[-1]
    linear = functools.partial(
      nn.Dense, kernel_init=layers.narrow_normal, dtype=self.dtype
    )
    y = nn.Conv(
      width,
      (7, 7),
      padding=3,
      feature_group_count=width,
      kernel_init=layers.narrow_normal,
      dtype=self.dtype,
      name='conv_dw',
    )(x)
    y = layers.LayerNorm(dtype=self.dtype, name='norm')(y)
    y = linear(width, name='fc2')(layers.gelu(linear(4 * width, name='fc1')(y)))
    init = nn.initializers.constant(BRANCH_SCALE)
    gamma = self.param('gamma', init, (width,))
    return x + y * gamma.astype(y.dtype).reshape(1, 1, 1, -1)


class ConvNeXt(nn.Module, kw_only=True):
  """A ConvNeXt without pooling and classifier.

  Attributes:
    size: 'tiny', 'small' or 'base'.
    width: Channels of the first stage, doubled by each later one; 0 is the
      published width.
    depths: Blocks of the four stages; () for the published ones.
    dtype: Of the computation, 'float32' or 'bfloat16'; parameters are float32.
    remat: Recompute blocks in the backward pass to save memory.
  """

  size: str = 'tiny'
  width: int = 0
  depths: tuple[int, ...] = ()
  dtype: str = 'float32'
  remat: bool = False

  def stages(self) -> list[tuple[int, int]]:
    """Returns blocks and channels of the four stages.

    Raises:
      UserError: If the size is unknown or `depths` is not of length four.
    """
    if self.size not in SIZES:
      raise UserError(f'size={self.size!r} is not one of {[*SIZES]}.')
    depths, widths = SIZES[self.size]
    depths = self.depths or depths
    if len(depths) != len(widths):
      raise UserError(
        f'depths={depths} must be one number for each of {len(widths)} stages.'
      )
    if self.width:
      widths = tuple(self.width * 2**i for i in range(len(widths)))
    return list(zip(depths, widths, strict=True))

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
    """Maps [0, 1] images to the features of the four stages.

    Args:
      image: (B, H, W, 3) in [0, 1]; pixels beyond a multiple of 32 are ignored.
      train: Ignored, so that all encoders are called alike.

    Returns:
      Four arrays at 1/4, 1/8, 1/16 and 1/32 of the size, in `dtype`: the
      outputs of the stages, without the normalisation before a classifier.

    Raises:
      UserError: If size or depths are invalid.
    """
    del train
    norm = functools.partial(layers.LayerNorm, dtype=self.dtype)
    block = nn.remat(Block) if self.remat else Block
    x = resnet.standardise(image)
    features = []
    for i, (depth, width) in enumerate(self.stages()):
      if i == 0:
        x = norm(name='stem_norm')(self._shrink(x, width, 4, 'stem_conv'))
      else:
        x = norm(name=f'downsample{i}_norm')(x)
        x = self._shrink(x, width, 2, f'downsample{i}_conv')
      for j in range(depth):
        x = block(dtype=self.dtype, name=f'stage{i}_{j}')(x)
      features.append(x)
    return tuple(features)

  def _shrink(
    self, x: jax.Array, width: int, factor: int, name: str
  ) -> jax.Array:
    """Maps every tile of factor x factor pixels to one pixel."""
    return nn.Conv(
      width,
      (factor, factor),
      strides=factor,
      padding='VALID',
      kernel_init=layers.narrow_normal,
      dtype=self.dtype,
      name=name,
    )(x)
