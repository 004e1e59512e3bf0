"""The Multi-scale Part-supervised Model of PartImageNet++.

A ResNet whose last stages also label parts. The auxiliary layers ("bypass")
serve training only: the class logits do not depend on them, and they are
computed only with `parts=True`. Li et al., arXiv:2407.10918; the official
code's `MPM`.
"""

from typing import Any

from flax import linen as nn
import jax

from pinpp_jax.errors import UserError
from pinpp_jax.models import layers, resnet

# A bypass works on a quarter of the channels of the stage it reads.
COMPACT = 4


class MPM(resnet.Network):
  """Classifies an image and, if asked, labels its parts at up to 3 scales.

  Attributes:
    activation: 'gelu' or 'relu', in the backbone; the bypass is always GELU.
    level: Scales: 1 labels at 1/32 of the image's size, 2 also at 1/16, 3 also
      at 1/8. Layers of other levels are not built.
    top_down: Whether coarse features are added to the finer ones.
  """

  activation: str = 'gelu'
  level: int = 3
  top_down: bool = True

  @nn.compact
  def __call__(
    self, image: jax.Array, *, train: bool, parts: bool = False
  ) -> dict[str, Any]:
    """Classifies images and labels their parts.

    Args:
      image: (B, H, W, 3) in [0, 1]; H and W multiples of 32.
      train: Whether batch normalisation uses (and updates) batch statistics.
      parts: Whether to compute the bypass.

    Returns:
      'logits': (B, num_classes) float32. With `parts`, also 'parts': list of
      `level` arrays (B, h, w, num_parts + 1) of logits in `dtype`, finest
      first, background at index 0.
    """
    if self.level not in (1, 2, 3):
      raise UserError(f'level={self.level} is not 1, 2 or 3.')
    stages = self.backbone()(image, train=train)
    outputs: dict[str, Any] = {'logits': resnet.classify(self, stages[-1])}
    if parts:
      outputs['parts'] = self._bypass(stages, train)
    return outputs

  def _bypass(
    self, stages: tuple[jax.Array, ...], train: bool
  ) -> list[jax.Array]:
    """Returns part logits of each level, finest first."""
    dtype, outputs, coarser = self.dtype, [], None
    for i in range(1, self.level + 1):
      stage = stages[-i]
      width = stage.shape[-1] // COMPACT
      x = layers.Conv(width, dtype=dtype, name=f'compact{i}_conv')(stage)
      x = layers.BatchNorm(
        train=train,
        group=self.batch_norm_group,
        dtype=dtype,
        name=f'compact{i}_bn',
      )(x)
      if self.top_down and coarser is not None:
        up = layers.SeparableConv(width, dtype=dtype, name=f'up{i - 1}')
        x += layers.resize(up(layers.gelu(coarser)), *x.shape[1:3])
      head = layers.SeparableConv(
        self.num_parts + 1, dtype=dtype, name=f'head{i}'
      )
      outputs.append(head(layers.gelu(x)))
      coarser = x
    return outputs[::-1]
