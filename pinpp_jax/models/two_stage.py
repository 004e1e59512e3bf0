"""The two-stage baseline: segment the parts, classify the segmentation.

The class is computed from the predicted parts alone, so the segmenter also
runs at inference. The official code's `TwostagePartModel`, after the pooling
model of Sitawarin et al., arXiv:2209.09117.
"""

from typing import Any

from flax import linen as nn
import jax

from pinpp_jax.models import layers, resnet

# The classifier sees the part probabilities on a grid of this size.
GRID = 4


class TwoStage(resnet.Network):
  """Classifies an image by its part probabilities.

  Attributes:
    activation: 'gelu' or 'relu', in the backbone; the rest is always GELU.
  """

  activation: str = 'gelu'

  @nn.compact
  def __call__(
    self, image: jax.Array, *, train: bool, parts: bool = False
  ) -> dict[str, Any]:
    """Classifies images and labels their parts.

    Args:
      image: (B, H, W, 3) in [0, 1]; H and W multiples of 32.
      train: Whether batch normalisation uses (and updates) batch statistics.
      parts: Whether to return the part logits, which are computed anyway.

    Returns:
      'logits': (B, num_classes) float32. With `parts`, also 'parts': list of
      one array (B, H/32, W/32, num_parts + 1) in `dtype`.
    """
    features = self.backbone()(image, train=train)[-1]
    x = self._norm('head_bn', train)(layers.gelu(features))
    x = layers.SeparableConv(self.num_parts + 1, dtype=self.dtype, name='head')(
      x
    )
    outputs: dict[str, Any] = {
      'logits': self._classify(x, features.shape[-1], train)
    }
    if parts:
      outputs['parts'] = [x]
    return outputs

  def _classify(
    self, part_logits: jax.Array, width: int, train: bool
  ) -> jax.Array:
    """Maps part logits (B, h, w, P + 1) to class logits (B, K), float32."""
    x = jax.nn.softmax(part_logits.astype(self.wide_dtype()))
    x = layers.adaptive_average_pool(x, GRID)
    conv = layers.Conv(
      width // 4, size=GRID, use_bias=True, dtype=self.dtype, name='conv'
    )
    x = self._norm('conv_bn', train)(conv(x))
    x = layers.gelu(x).reshape(x.shape[0], -1)
    x = layers.Linear(width, dtype=self.dtype, name='hidden')(x)
    x = layers.gelu(self._norm('hidden_bn', train)(x))
    return layers.Linear(
      self.num_classes, dtype=self.wide_dtype(), name='classifier'
    )(x)

  def _norm(self, name: str, train: bool) -> layers.BatchNorm:
    return layers.BatchNorm(
      train=train, group=self.batch_norm_group, dtype=self.dtype, name=name
    )
