"""Exported weights in networks written in torch give the same logits.

A leaderboard scores the torch network: what is exported must be the network
that was attacked here. The torch side is written out below from the published
architectures and loads the state dict strictly.
"""

import jax
import numpy as np
import pytest

from pinpp_jax import models
from pinpp_jax.models.torch import exporter, files

torch = pytest.importorskip('torch', reason='torch is not installed')
nn, functional = torch.nn, torch.nn.functional

MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


def conv(inputs, outputs, size=1, stride=1, groups=1):
  return nn.Conv2d(
    inputs, outputs, size, stride, size // 2, groups=groups, bias=False
  )


class Block(nn.Module):
  """A residual block: of two 3x3 convolutions, or a bottleneck (v1.5)."""

  def __init__(self, inputs, inner, stride, expansion, act):
    super().__init__()
    outputs = inner * expansion
    if expansion == 1:
      shapes = [(inputs, inner, 3, stride), (inner, outputs, 3, 1)]
    else:
      shapes = [
        (inputs, inner, 1, 1),
        (inner, inner, 3, stride),
        (inner, outputs, 1, 1),
      ]
    self.count = len(shapes)
    for i, shape in enumerate(shapes, 1):
      setattr(self, f'conv{i}', conv(*shape))
      setattr(self, f'bn{i}', nn.BatchNorm2d(shape[1]))
    self.act, self.downsample = act, None
    if stride != 1 or inputs != outputs:
      self.downsample = nn.Sequential(
        conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
      )

  def forward(self, x):
    shortcut = x if self.downsample is None else self.downsample(x)
    for i in range(1, self.count + 1):
      x = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(x))
      if i < self.count:
        x = self.act(x)
    return self.act(x + shortcut)


class Backbone(nn.Module):
  def __init__(self, depth, width, act):
    super().__init__()
    expansion = 4 if depth >= 50 else 1
    self.act = act
    self.conv1, self.bn1 = conv(3, width, 7, 2), nn.BatchNorm2d(width)
    self.maxpool = nn.MaxPool2d(3, 2, 1)
    channels = width
    for i, count in enumerate(BLOCKS[depth]):
      blocks, inner = [], width * 2**i
      for j in range(count):
        stride = 2 if i and not j else 1
        blocks.append(Block(channels, inner, stride, expansion, act))
        channels = inner * expansion
      setattr(self, f'layer{i + 1}', nn.Sequential(*blocks))
    self.channels = channels

  def stages(self, x):
    x = self.maxpool(self.act(self.bn1(self.conv1((x - MEAN) / STD))))
    found = []
    for i in range(1, 5):
      x = getattr(self, f'layer{i}')(x)
      found.append(x)
    return found


class ResNet(Backbone):
  def __init__(self, depth, width, act, classes):
    super().__init__(depth, width, act)
    self.fc = nn.Linear(self.channels, classes)

  def forward(self, x):
    return self.fc(self.stages(x)[-1].mean((2, 3)))


class Separable(nn.Module):
  def __init__(self, inputs, outputs):
    super().__init__()
    self.conv1 = conv(inputs, inputs, 3, groups=inputs)
    self.pointwise = conv(inputs, outputs)

  def forward(self, x):
    return self.pointwise(self.conv1(x))


class MPM(nn.Module):
  """The names are the official code's, its spelling too."""

  def __init__(self, depth, width, act, classes, parts):
    super().__init__()
    self.segmenter = Backbone(depth, width, act)
    channels = self.segmenter.channels
    self.classifer = nn.Sequential(
      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )
    for i in (1, 2, 3):
      inner = channels // 4
      compact = nn.Sequential(conv(channels, inner), nn.BatchNorm2d(inner))
      head = nn.Sequential(nn.GELU(), Separable(inner, parts + 1))
      setattr(self, f'cp{i}', compact)
      setattr(self, f'segmenter_head{i}', head)
      if i > 1:
        up = nn.Sequential(nn.GELU(), Separable(2 * inner, inner))
        setattr(self, f'up_layer{i - 1}', up)
      channels //= 2

  def forward(self, x):
    stages = self.segmenter.stages(x)
    found, coarser = [], None
    for i in (1, 2, 3):
      x = getattr(self, f'cp{i}')(stages[-i])
      if coarser is not None:
        up = getattr(self, f'up_layer{i - 1}')(coarser)
        x = x + functional.interpolate(
          up, x.shape[2:], mode='bilinear', align_corners=False
        )
      found.insert(0, getattr(self, f'segmenter_head{i}')(x))
      coarser = x
    return self.classifer(stages[-1]), found


def used(variables):
  """Variables as after training: no scale is one, no statistic is zero."""
  rng = np.random.default_rng(0)

  def move(path, leaf):
    noise = 0.2 * rng.normal(size=leaf.shape).astype(np.float32)
    if path[-1].key == 'kernel':
      return leaf
    # Scales below one, or the stages would add up to thousands.
    shrink = {'scale': 0.6}.get(path[-1].key, 1.0)
    return np.abs(shrink * leaf + noise)

  return jax.tree_util.tree_map_with_path(move, variables)


def image():
  """Three patchworks: noise alone would look alike to the last stage."""
  rng = np.random.default_rng(1)
  patches = rng.uniform(size=(3, 6, 4, 3)).astype(np.float32)
  return np.kron(patches, np.ones((1, 16, 16, 1), np.float32))


def ours(model, variables):
  apply = jax.jit(
    lambda variables, x: model.apply(variables, x, train=False, parts=True)
  )
  return jax.device_get(apply(variables, image()))


def theirs(network, tensors):
  # Strictly: a name too many or too few is an error.
  network.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()})
  with torch.no_grad():
    return network.eval()(torch.tensor(image().transpose(0, 3, 1, 2)))


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('activation', ['relu', 'gelu'])
def test_a_resnet(depth, activation, variables_of, tmp_path):
  model = models.ResNet(
    num_classes=7, depth=depth, width=8, activation=activation
  )
  variables = used(variables_of(model))
  act = {'relu': nn.ReLU(), 'gelu': nn.GELU()}[activation]
  path = tmp_path / 'model.safetensors'
  files.write_file(path, model, variables)
  logits = theirs(ResNet(depth, 8, act, 7), files.read_file(path))
  expected = ours(model, variables)['logits']
  assert np.ptp(expected, axis=0).max() > 1e-2  # Images matter
  np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('depth', [18, 50])
def test_an_mpm(depth, variables_of):
  model = models.MPM(num_classes=7, num_parts=11, depth=depth, width=8)
  variables = used(variables_of(model))
  network = MPM(depth, 8, nn.GELU(), 7, 11)
  logits, parts = theirs(network, exporter.tensors(model, variables))
  expected = ours(model, variables)
  assert np.ptp(expected['logits'], axis=0).max() > 1e-2
  np.testing.assert_allclose(
    logits.numpy(), expected['logits'], rtol=1e-5, atol=1e-4
  )
  for found, part in zip(parts, expected['parts'], strict=True):
    np.testing.assert_allclose(
      found.numpy().transpose(0, 2, 3, 1), part, rtol=1e-5, atol=1e-4
    )
