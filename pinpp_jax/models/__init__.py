"""Networks: images in [0, 1] to a dict of outputs.

`model.apply(variables, image, train=..., parts=...)` returns 'logits' (B, K)
float32 and, if the network predicts parts and `parts=True`, 'parts': a list of
(B, h, w, P + 1) logits, finest first. A segmenter returns only 'parts', and
scores only the parts in `candidates`, if given. Networks standardise images
themselves. With `train=True` pass `mutable=['batch_stats']`.
`model.init(key, image, train=False, parts=True)` makes every variable.
"""

from pinpp_jax.models.mpm import MPM
from pinpp_jax.models.resnet import ResNet
from pinpp_jax.models.segmenter import Segmenter
from pinpp_jax.models.two_stage import TwoStage

MODELS = {
  'resnet': ResNet,
  'mpm': MPM,
  'two_stage': TwoStage,
  'segmenter': Segmenter,
}

__all__ = ['MODELS', 'MPM', 'ResNet', 'Segmenter', 'TwoStage']
