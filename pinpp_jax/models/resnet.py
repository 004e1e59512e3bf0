"""ResNet-10 to 152 and wide ResNets, with ReLU or GELU.

The network of torchvision and timm ("v1.5": the 3x3 convolution of a bottleneck
has the stride). He et al., arXiv:1512.03385; wide: arXiv:1605.07146; the GELU
variant is that of PartImageNet++, arXiv:2407.10918.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax.errors import UserError
from pinpp_jax.models import cpu_forms, layers

# Blocks in each of the four stages.
BLOCKS = {
  10: (1, 1, 1, 1),
  18: (2, 2, 2, 2),
  34: (3, 4, 6, 3),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
  152: (3, 8, 36, 3),
}

# Pixels per cell after each stage, if none is dilated.
STRIDES = (4, 8, 16, 32)

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def standardise(image: jax.Array) -> jax.Array:
  """Maps [0, 1] images to ImageNet's zero mean and unit variance, float32."""
  image = image.astype(jnp.promote_types(image.dtype, jnp.float32))
  mean, std = MEAN.reshape(1, 1, 1, 3), STD.reshape(1, 1, 1, 3)
  return (image - mean.astype(image.dtype)) / std.astype(image.dtype)


class Block(nn.Module):
  """Residual block: two 3x3 convolutions, or the 1x1, 3x3, 1x1 bottleneck.

  Attributes:
    features: Output channels.
    inner: Channels of the convolutions before the last.
    bottleneck: Whether it is a bottleneck.
    stride: Of the block.
    first_dilation: Of the first 3x3 convolution.
    dilation: Of the second 3x3 convolution; a bottleneck has none.
    project: Whether the shortcut is a 1x1 convolution.
    act: Elementwise function.
    conv: Makes a convolution: (features, size, stride, ...) to module.
    norm: Makes a batch normalisation.
  """

  features: int
  inner: int
  bottleneck: bool
  stride: int
  project: bool
  act: Callable[[jax.Array], jax.Array]
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]
  first_dilation: int = 1
  dilation: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) to (B, H/stride, W/stride, features)."""
    shortcut = x
    if self.project:
      name = 'downsample_conv'
      shortcut = self.conv(self.features, stride=self.stride, name=name)(x)
      shortcut = self.norm(name='downsample_bn')(shortcut)
    if self.bottleneck:
      sizes, strides = (1, 3, 1), (1, self.stride, 1)
      dilations = (1, self.first_dilation, 1)
    else:
      sizes, strides = (3, 3), (self.stride, 1)
      dilations = (self.first_dilation, self.dilation)
    last = len(sizes)
    for i, (size, stride, dilation) in enumerate(
      zip(sizes, strides, dilations, strict=True), 1
    ):
      x = self.conv(
        self.features if i == last else self.inner,
        size=size,
        stride=stride,
        padding=dilation * (size // 2),
        dilation=dilation,
        name=f'conv{i}',
      )(x)
      # A zero scale makes the block start as the identity.
      init = nn.initializers.zeros if i == last else nn.initializers.ones
      x = self.norm(scale_init=init, name=f'bn{i}')(x)
      if i < last:
        x = self.act(x)
    return self.act(x + shortcut)


class Backbone(nn.Module):
  """A ResNet without pooling and classifier.

  The other attributes are those of `Network`.

  Attributes:
    output_stride: 32, or 16 or 8: later stages then keep the size and dilate
      their convolutions instead (Chen et al., arXiv:1706.05587).
  """

  depth: int = 50
  wide: int = 1
  width: int = 64
  activation: str = 'relu'
  dtype: str = 'float32'
  batch_norm_group: int = 0
  remat: bool = False
  output_stride: int = 32

  def widths(self) -> tuple[int, int, int, int]:
    """Returns the channels of the four stages."""
    first = self.width * (4 if self.depth >= 50 else 1)
    return first, 2 * first, 4 * first, 8 * first

  def _dilations(self) -> tuple[int, ...]:
    """Returns the dilation of each stage, which replaces its stride."""
    if self.output_stride not in (8, 16, 32):
      raise UserError(f'output_stride={self.output_stride} is not 8, 16 or 32.')
    return tuple(max(stride // self.output_stride, 1) for stride in STRIDES)

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
    """Maps [0, 1] images to the features of the four stages.

    Args:
      image: (B, H, W, 3) in [0, 1].
      train: Whether batch normalisation uses (and updates) batch statistics.

    Returns:
      Four arrays at 1/4, 1/8, 1/16 and 1/32 of the size, in `dtype`; none is
      smaller than 1/output_stride.

    Raises:
      UserError: If a field has an invalid value.
    """
    if self.depth not in BLOCKS:
      raise UserError(f'depth={self.depth} is not one of {sorted(BLOCKS)}.')
    bottleneck = self.depth >= 50
    if self.wide != 1 and not bottleneck:
      raise UserError(f'wide={self.wide} needs depth 50 or more.')
    dilations = self._dilations()
    act = layers.activation(self.activation)
    conv = functools.partial(
      layers.Conv, kernel_init=layers.kaiming_normal, dtype=self.dtype
    )
    norm = functools.partial(
      layers.BatchNorm,
      train=train,
      group=self.batch_norm_group,
      dtype=self.dtype,
    )
    block = nn.remat(Block) if self.remat else Block

    x = standardise(image)
    x = conv(self.width, size=7, stride=2, padding=3, name='conv1')(x)
    x = cpu_forms.max_pool(act(norm(name='bn1')(x)))
    stages = []
    for i, features in enumerate(self.widths()):
      dilation = dilations[i]
      for j in range(BLOCKS[self.depth][i]):
        first = i > 0 and j == 0
        inner = self.width * 2**i * (self.wide if bottleneck else 1)
        x = block(
          features=features,
          inner=inner,
          bottleneck=bottleneck,
          stride=2 if first and dilation == 1 else 1,
          first_dilation=dilations[i - 1] if first else dilation,
          dilation=dilation,
          project=j == 0 and (i > 0 or bottleneck),
          act=act,
          conv=conv,
          norm=norm,
          name=f'layer{i + 1}_{j}',
        )(x)
      stages.append(x)
    return tuple(stages)


class Network(nn.Module, kw_only=True):
  """Common fields of the classifiers: a ResNet backbone and counts.

  Attributes:
    num_classes: Classes of the images.
    num_parts: Parts, background not counted; a plain ResNet ignores it.
    depth: 10, 18, 34, 50, 101 or 152.
    wide: Factor of the inner channels of bottlenecks (2: "wide ResNet").
    width: Channels of the stem; 64 is the published network.
    activation: 'relu' or 'gelu', in the backbone.
    dtype: Of the computation, 'float32' or 'bfloat16'. Parameters, statistics
      and class logits are float32 either way.
    batch_norm_group: Images normalised together; 0 is the whole batch.
    remat: Recompute residual blocks in the backward pass to save memory.
  """

  num_classes: int
  num_parts: int = 0
  depth: int = 50
  wide: int = 1
  width: int = 64
  activation: str = 'relu'
  dtype: str = 'float32'
  batch_norm_group: int = 0
  remat: bool = False

  def backbone(self) -> Backbone:
    """Returns the backbone; call it from a compact method."""
    return Backbone(
      depth=self.depth,
      wide=self.wide,
      width=self.width,
      activation=self.activation,
      dtype=self.dtype,
      batch_norm_group=self.batch_norm_group,
      remat=self.remat,
      name='backbone',
    )

  def wide_dtype(self) -> Any:
    """Returns the dtype of class logits: float32, or float64 for float64."""
    return jnp.promote_types(self.dtype, jnp.float32)


class ResNet(Network):
  """A plain ResNet classifier."""

  @nn.compact
  def __call__(
    self, image: jax.Array, *, train: bool, parts: bool = False
  ) -> dict[str, jax.Array]:
    """Classifies images; `parts` is accepted and changes nothing.

    Args:
      image: (B, H, W, 3) in [0, 1].
      train: Whether batch normalisation uses (and updates) batch statistics.
      parts: Ignored, so that every network is called alike.

    Returns:
      'logits': (B, num_classes) float32.
    """
    del parts
    features = self.backbone()(image, train=train)[-1]
    return {'logits': classify(self, features)}


def classify(network: Network, features: jax.Array) -> jax.Array:
  """Averages (B, H, W, C) and maps it to (B, num_classes) float32 logits."""
  dtype = network.wide_dtype()
  pooled = features.astype(dtype).mean((1, 2))
  return layers.Linear(network.num_classes, dtype=dtype, name='classifier')(
    pooled
  )
