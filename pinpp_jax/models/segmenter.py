"""Part segmentation: an encoder, a decoder, and a linear layer for scores."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from pinpp_jax.errors import UserError
from pinpp_jax.models import convnext, decoders, layers, resnet, vit

STRIDE = 4  # Pixels per cell of the result.

DECODERS: Mapping[str, type[decoders.Decoder]] = {
  'upernet': decoders.UPerNet,
  'deeplabv3plus': decoders.DeepLabV3Plus,
}
ENCODERS: Mapping[str, Callable[..., nn.Module]] = {
  'resnet10': functools.partial(resnet.Backbone, depth=10),
  'resnet18': functools.partial(resnet.Backbone, depth=18),
  'resnet50': functools.partial(resnet.Backbone, depth=50),
  'resnet101': functools.partial(resnet.Backbone, depth=101),
  'convnext_tiny': functools.partial(convnext.ConvNeXt, size='tiny'),
  'convnext_base': functools.partial(convnext.ConvNeXt, size='base'),
  'vit_small': functools.partial(vit.ViT, size='small'),
  'vit_base': functools.partial(vit.ViT, size='base'),
}


class Segmenter(nn.Module, kw_only=True):
  """Scores parts at every fourth pixel.

  In training and for pseudo labels the image's class is known. Then only the
  parts of that class are scored: their rows of the last layer are gathered, so
  that cost and memory do not grow with the number of parts.

  Attributes:
    num_parts: Parts of all classes, background not counted.
    num_classes: Not used: the class is given, not predicted.
    encoder: One of `ENCODERS`.
    decoder: 'upernet' or 'deeplabv3plus'.
    channels: Of the decoder.
    width: First width of the encoder; 0 is the published one.
    output_stride: Only for ResNets: 32, or 16 or 8 with dilation.
    dtype: Of the computation, 'float32' or 'bfloat16'; parameters and scores
      are float32 either way.
    batch_norm_group: Images normalised together; 0 is the whole batch.
    remat: Recompute the encoder's blocks in the backward pass to save memory.
  """

  num_parts: int
  num_classes: int = 0
  encoder: str = 'resnet50'
  decoder: str = 'upernet'
  channels: int = 256
  width: int = 0
  output_stride: int = 32
  dtype: str = 'float32'
  batch_norm_group: int = 0
  remat: bool = False

  @nn.nowrap
  def backbone(self) -> nn.Module:
    """Returns the encoder, called 'backbone' among the variables.

    Raises:
      UserError: If the encoder is unknown, or has no output stride.
    """
    if self.encoder not in ENCODERS:
      raise UserError(f'encoder={self.encoder!r} is not one of {[*ENCODERS]}.')
    fields: dict[str, Any] = {'dtype': self.dtype, 'remat': self.remat}
    if self.width:
      fields['width'] = self.width
    if self.encoder.startswith('resnet'):
      fields['output_stride'] = self.output_stride
      fields['batch_norm_group'] = self.batch_norm_group
    elif self.output_stride != 32:
      raise UserError(
        f'output_stride={self.output_stride} is only for ResNets; use 32 for'
        f' {self.encoder}.'
      )
    return ENCODERS[self.encoder](name='backbone', **fields)

  @nn.compact
  def __call__(
    self,
    image: jax.Array,
    *,
    train: bool,
    parts: bool = True,
    candidates: jax.Array | None = None,
  ) -> dict[str, list[jax.Array]]:
    """Scores the parts of images.

    Args:
      image: (B, H, W, 3) in [0, 1]; H and W multiples of 4.
      train: Whether batch normalisation uses (and updates) batch statistics.
      parts: Ignored, so that all networks are called alike.
      candidates: (B, m) int ids of the parts to score, 0 for background; None
        scores all.

    Returns:
      'parts': list of one float32 array, (B, H/4, W/4, m) in the order of
      `candidates`, or (B, H/4, W/4, num_parts + 1) in the order of the ids.
    """
    del parts
    if self.decoder not in DECODERS:
      raise UserError(f'decoder={self.decoder!r} is not one of {[*DECODERS]}.')
    features: Any = self.backbone()(image, train=train)
    x = DECODERS[self.decoder](
      channels=self.channels,
      dtype=self.dtype,
      batch_norm_group=self.batch_norm_group,
      name='decoder',
    )(features, train=train)
    height, width = image.shape[1] // STRIDE, image.shape[2] // STRIDE
    if x.shape[1:3] != (height, width):
      x = layers.resize(x, height, width)
    scores = Scores(self.num_parts + 1, dtype=self.dtype, name='scores')
    return {'parts': [scores(x, candidates)]}


class Scores(nn.Module):
  """A linear layer over pixels that can compute only some of its outputs.

  Attributes:
    number: Outputs.
    dtype: Of the product's factors; sums are float32.
  """

  number: int
  dtype: Any = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array, ids: jax.Array | None) -> jax.Array:
    """Maps (B, H, W, C) to float32 (B, H, W, m) for ids (B, m), or to all."""
    bound = x.shape[-1] ** -0.5
    shape = (self.number, x.shape[-1])
    # One row per output, so that a gather copies whole rows.
    kernel = self.param('kernel', layers.uniform(bound), shape)
    bias = self.param('bias', nn.initializers.zeros, (self.number,))
    product = functools.partial(
      jnp.einsum,
      preferred_element_type=jnp.promote_types(self.dtype, jnp.float32),
    )
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    if ids is None:
      return product('bhwc,kc->bhwk', x, kernel) + bias.reshape(1, 1, 1, -1)
    rows, offset = kernel[ids], bias[ids]
    return product('bhwc,bmc->bhwm', x, rows) + offset[:, None, None]
