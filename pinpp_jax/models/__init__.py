"""Networks: images in [0, 1] to a dict of outputs.

`model.apply(variables, image, train=..., parts=...)` gives 'logits' (B, K)
float32 and, where the network labels parts and `parts=True`, 'parts': a list of
(B, h, w, P + 1) logits, finest first. A segmenter has 'parts' alone, and scores
only the parts that `candidates` names, if given. Networks subtract mean and
standard deviation themselves. With `train=True` pass `mutable=['batch_stats']`.
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
