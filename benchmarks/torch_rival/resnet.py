"""ResNets in PyTorch, under torchvision's names."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from pinpp_jax.models.resnet import BLOCKS, MEAN, STD

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
  'relu': torch.relu,
  'gelu': functional.gelu,
}


class Block(nn.Module):
  """Two 3x3 convolutions, or a bottleneck (v1.5), beside a shortcut."""

  def __init__(
    self,
    before: int,
    after: int,
    inner: int,
    stride: int,
    bottleneck: bool,
    activation: str,
  ):
    super().__init__()
    shapes = [(before, inner, 3, stride), (inner, after, 3, 1)]
    if bottleneck:
      shapes = [
        (before, inner, 1, 1),
        (inner, inner, 3, stride),
        (inner, after, 1, 1),
      ]
    self.layers, self.activate = len(shapes), ACTIVATIONS[activation]
    for i, (inputs, outputs, size, step) in enumerate(shapes, 1):
      setattr(self, f'conv{i}', conv(inputs, outputs, size, step))
      setattr(self, f'bn{i}', nn.BatchNorm2d(outputs))
    self.downsample = nn.Sequential()
    if stride > 1 or before != after:
      self.downsample = nn.Sequential(
        conv(before, after, 1, stride), nn.BatchNorm2d(after)
      )

  def forward(self, x):
    """Maps (B, C, H, W) to (B, C', H/stride, W/stride)."""
    shortcut = self.downsample(x)
    for i in range(1, self.layers + 1):
      x = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(x))
      if i < self.layers:
        x = self.activate(x)
    return self.activate(x + shortcut)


class Backbone(nn.Module):
  """Maps images (B, 3, H, W) in [0, 1] to the features of four stages."""

  def __init__(self, depth: int, width: int, activation: str = 'relu'):
    super().__init__()
    self.activate = ACTIVATIONS[activation]
    self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.pool = nn.MaxPool2d(3, 2, padding=1)
    bottleneck, before = depth >= 50, width
    for stage, blocks in enumerate(BLOCKS[depth]):
      inner, made = width * 2**stage, []
      after = inner * (4 if bottleneck else 1)
      for i in range(blocks):
        stride = 2 if stage and not i else 1
        made.append(Block(before, after, inner, stride, bottleneck, activation))
        before = after
      setattr(self, f'layer{stage + 1}', nn.Sequential(*made))
    self.channels = before
    for name, value in (('mean', MEAN), ('std', STD)):
      tensor = torch.tensor(value).reshape(1, 3, 1, 1)
      self.register_buffer(name, tensor, persistent=False)

  def stages(self, image):
    """Returns four arrays, at 1/4 to 1/32 of the size."""
    x = self.conv1((image - self.mean) / self.std)
    x = self.pool(self.activate(self.bn1(x)))
    found = []
    for stage in range(1, 5):
      x = getattr(self, f'layer{stage}')(x)
      found.append(x)
    return found


class ResNet(Backbone):
  """Maps images (B, 3, H, W) in [0, 1] to logits, as models.ResNet does."""

  def __init__(
    self, depth: int, width: int, classes: int, activation: str = 'relu'
  ):
    super().__init__(depth, width, activation)
    self.fc = nn.Linear(self.channels, classes)

  def forward(self, image, parts: bool = False):
    """Returns logits (B, K); `parts` adds an empty list, as MPM's is not."""
    logits = self.fc(self.stages(image)[-1].mean((2, 3)))
    return (logits, []) if parts else logits


def conv(inputs: int, outputs: int, size: int = 1, stride: int = 1):
  """Returns a convolution without a bias that keeps the size at stride 1."""
  return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
