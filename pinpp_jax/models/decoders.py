"""Decoders: from the four features of an encoder to one feature map."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from pinpp_jax.models import layers

Features = Sequence[jax.Array]


class ConvBlock(nn.Module):
  """Convolution, batch normalisation, ReLU; keeps the size of the map.

  Attributes:
    features: Output channels.
    size: Of the kernel, odd.
    dilation: Spacing of the kernel's taps.
    norm: Makes a batch normalisation.
    dtype: Of the computation.
  """

  features: int
  norm: Callable[..., nn.Module]
  size: int = 1
  dilation: int = 1
  dtype: Any = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) to (B, H, W, features)."""
    x = layers.Conv(
      self.features,
      size=self.size,
      padding=self.dilation * (self.size // 2),
      dilation=self.dilation,
      kernel_init=layers.kaiming_normal,
      dtype=self.dtype,
      name='conv',
    )(x)
    return nn.relu(self.norm(name='bn')(x))


class Decoder(nn.Module, kw_only=True):
  """Common fields of the decoders.

  Attributes:
    channels: Of its layers and of the result.
    dtype: Of the computation.
    batch_norm_group: Images normalised together; 0 is the whole batch.
  """

  channels: int = 256
  dtype: str = 'float32'
  batch_norm_group: int = 0

  def block(self, train: bool) -> Callable[..., ConvBlock]:
    """Returns a constructor of this decoder's convolution blocks."""
    norm = functools.partial(
      layers.BatchNorm,
      train=train,
      group=self.batch_norm_group,
      dtype=self.dtype,
    )
    return functools.partial(ConvBlock, norm=norm, dtype=self.dtype)


class UPerNet(Decoder):
  """Pyramid pooling on the coarsest features, a feature pyramid over all.

  Xiao et al., arXiv:1807.10221.
  """

  POOLS = (1, 2, 3, 6)  # Cells a side of each pooled map.

  @nn.compact
  def __call__(self, features: Features, *, train: bool) -> jax.Array:
    """Maps four features, finest first, to (B, h, w, channels) at the finest.

    Args:
      features: (B, h, w, c) each.
      train: Whether batch normalisation uses (and updates) batch statistics.
    """
    block = self.block(train)
    pyramid = [self._pooled(features[-1], block)]
    for i in reversed(range(len(features) - 1)):
      lateral = block(self.channels, name=f'lateral{i}')(features[i])
      pyramid.append(lateral + _like(pyramid[-1], lateral))
    coarsest, *finer = pyramid
    smooth = [
      block(self.channels, size=3, name=f'smooth{i}')(x)
      for i, x in enumerate(finer)
    ]
    size_of = smooth[-1]
    x = jnp.concatenate([_like(x, size_of) for x in [coarsest, *smooth]], -1)
    return block(self.channels, size=3, name='fuse')(x)

  def _pooled(self, x: jax.Array, block: Callable[..., nn.Module]) -> jax.Array:
    """Returns the coarsest features beside their averages over windows."""
    maps = [x]
    for size in self.POOLS:
      pooled = layers.adaptive_average_pool(x, size)
      pooled = block(self.channels, name=f'pool{size}')(pooled)
      maps.append(_like(pooled, x))
    x = jnp.concatenate(maps, -1)
    return block(self.channels, size=3, name='pools')(x)


class DeepLabV3Plus(Decoder):
  """Parallel dilated convolutions on the coarsest features, then the finest.

  Chen et al., arXiv:1802.02611. For features at 1/16 of the image's size.

  Attributes:
    rates: Dilations of the 3x3 convolutions.
    low_channels: Channels that the finest features are reduced to.
  """

  rates: tuple[int, ...] = (6, 12, 18)
  low_channels: int = 48

  @nn.compact
  def __call__(self, features: Features, *, train: bool) -> jax.Array:
    """Maps features, finest first, to (B, h, w, channels) at the finest.

    Args:
      features: (B, h, w, c) each; all but the first and last are ignored.
      train: Whether batch normalisation uses (and updates) batch statistics.
    """
    block = self.block(train)
    low, x = features[0], features[-1]
    maps = [block(self.channels, name='point')(x)]
    maps += [
      block(self.channels, size=3, dilation=rate, name=f'dilated{rate}')(x)
      for rate in self.rates
    ]
    pooled = block(self.channels, name='pool')(x.mean((1, 2), keepdims=True))
    maps.append(_like(pooled, x))
    x = block(self.channels, name='join')(jnp.concatenate(maps, -1))
    low = block(self.low_channels, name='low')(low)
    x = jnp.concatenate([_like(x, low), low], -1)
    for i in (1, 2):
      x = block(self.channels, size=3, name=f'refine{i}')(x)
    return x


def _like(x: jax.Array, other: jax.Array) -> jax.Array:
  """Resizes `x` to the height and width of `other`."""
  if x.shape[1:3] == other.shape[1:3]:
    return x
  return layers.resize(x, *other.shape[1:3])
