"""A ResNet of basic blocks in PyTorch, under torchvision's names."""

import torch
from torch import nn

from pinpp_jax.models.resnet import BLOCKS, MEAN, STD


class Block(nn.Module):
  """Two 3x3 convolutions beside a shortcut."""

  def __init__(self, before: int, after: int, stride: int):
    super().__init__()
    conv = lambda i, o, s: nn.Conv2d(i, o, 3, s, padding=1, bias=False)
    self.conv1, self.bn1 = conv(before, after, stride), nn.BatchNorm2d(after)
    self.conv2, self.bn2 = conv(after, after, 1), nn.BatchNorm2d(after)
    self.downsample = nn.Sequential()
    if stride > 1:
      shortcut = nn.Conv2d(before, after, 1, stride, bias=False)
      self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(after))

  def forward(self, x):
    """Maps (B, C, H, W) to (B, C', H/stride, W/stride)."""
    y = torch.relu(self.bn1(self.conv1(x)))
    return torch.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNet(nn.Module):
  """Maps images (B, 3, H, W) in [0, 1] to logits, as models.ResNet does."""

  def __init__(self, depth: int, width: int, classes: int):
    super().__init__()
    self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.pool = nn.MaxPool2d(3, 2, padding=1)
    before = width
    for stage, blocks in enumerate(BLOCKS[depth]):
      after, made = width * 2**stage, []
      for i in range(blocks):
        made.append(Block(before, after, 2 if stage and not i else 1))
        before = after
      setattr(self, f'layer{stage + 1}', nn.Sequential(*made))
    self.fc = nn.Linear(before, classes)
    for name, value in (('mean', MEAN), ('std', STD)):
      tensor = torch.tensor(value).reshape(1, 3, 1, 1)
      self.register_buffer(name, tensor, persistent=False)

  def forward(self, image):
    """Returns logits (B, K)."""
    x = self.conv1((image - self.mean) / self.std)
    x = self.pool(torch.relu(self.bn1(x)))
    for stage in range(1, 5):
      x = getattr(self, f'layer{stage}')(x)
    return self.fc(x.mean((2, 3)))
