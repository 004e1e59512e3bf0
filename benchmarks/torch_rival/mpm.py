"""The Multi-scale Part-supervised Model in PyTorch, under its official names.

Li et al., arXiv:2407.10918; written from the published architecture.
"""

from torch import nn
from torch.nn import functional

from benchmarks.torch_rival.resnet import Backbone, conv

LEVELS = (1, 2, 3)
COMPACT = 4


class Separable(nn.Module):
  """Depthwise 3x3, then pointwise 1x1."""

  def __init__(self, inputs: int, outputs: int):
    super().__init__()
    self.conv1 = nn.Conv2d(
      inputs, inputs, 3, padding=1, groups=inputs, bias=False
    )
    self.pointwise = conv(inputs, outputs)

  def forward(self, x):
    """Maps (B, C, H, W) to (B, C', H, W)."""
    return self.pointwise(self.conv1(x))


class MPM(nn.Module):
  """Maps images (B, 3, H, W) in [0, 1] to logits and part logits.

  Args:
    depth: Of the ResNet.
    width: Of its stem.
    classes: Of the images.
    channels: Of the part logits, background included.
    lean: Compute the compact layers only with `parts`. The reference computes
      them in every forward pass, also in its attack.
  """

  def __init__(
    self, depth: int, width: int, classes: int, channels: int, lean: bool = True
  ):
    super().__init__()
    self.lean = lean
    self.segmenter = Backbone(depth, width, 'gelu')
    stage = self.segmenter.channels
    widths = [stage // 2 ** (i - 1) // COMPACT for i in LEVELS]
    for i, inner in zip(LEVELS, widths, strict=True):
      compact = conv(COMPACT * inner, inner), nn.BatchNorm2d(inner)
      setattr(self, f'cp{i}', nn.Sequential(*compact))
      head = nn.GELU(), Separable(inner, channels)
      setattr(self, f'segmenter_head{i}', nn.Sequential(*head))
      if i < LEVELS[-1]:
        up = nn.GELU(), Separable(inner, inner // 2)
        setattr(self, f'up_layer{i}', nn.Sequential(*up))
    self.classifer = nn.Sequential(
      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(stage, classes)
    )

  def forward(self, image, parts: bool = False):
    """Returns logits (B, K), and with `parts` part logits, finest first."""
    stages = self.segmenter.stages(image)
    logits = self.classifer(stages[-1])
    if self.lean and not parts:
      return logits
    compact = [getattr(self, f'cp{i}')(stages[-i]) for i in LEVELS]
    if not parts:
      return logits
    merged, outputs = compact[0], []
    for i in LEVELS:
      if i > 1:
        up = getattr(self, f'up_layer{i - 1}')(merged)
        finer = compact[i - 1]
        merged = finer + functional.interpolate(
          up, finer.shape[2:], mode='bilinear', align_corners=False
        )
      outputs.append(getattr(self, f'segmenter_head{i}')(merged))
    return logits, outputs[::-1]
