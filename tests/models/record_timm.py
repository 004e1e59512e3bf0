"""Records what timm's networks answer, for test_encoders.py.

Run once, with timm 1.0.31 and torch 2.13 on a CPU, and never by a test:

  pip install --no-deps --target /tmp/timm timm==1.0.31 huggingface_hub \
    safetensors pyyaml
  PYTHONPATH=/tmp/timm python tests/models/record_timm.py

timm imports torchvision, but these networks use nothing of it: where it is not
installed, empty modules stand in.
"""

import importlib.util
import pathlib
import sys
import types
from typing import Any

import numpy as np
import torch
from torch.nn import functional

FOLDER = pathlib.Path(__file__).parent / 'timm_golden'
MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)


class AbsentMeta(type):
  """A class where every attribute is its own name."""

  def __getattr__(cls, name: str) -> Any:
    return name


class Absent(types.ModuleType):
  """A module where every name is such a class."""

  def __getattr__(self, name: str) -> Any:
    if name.startswith('__'):
      raise AttributeError(name)
    return AbsentMeta(name, (), {})


if importlib.util.find_spec('torchvision') is None:
  for name in (
    'torchvision',
    'torchvision.datasets',
    'torchvision.models',
    'torchvision.models.feature_extraction',
    'torchvision.ops',
    'torchvision.ops.misc',
    'torchvision.transforms',
    'torchvision.transforms.functional',
  ):
    sys.modules[name] = Absent(name)
    parent, _, leaf = name.rpartition('.')
    if parent:
      setattr(sys.modules[parent], leaf, sys.modules[name])

from timm.models import convnext, resnet, vision_transformer


def main() -> None:
  """Writes one file for each network: weights, images and features."""
  FOLDER.mkdir(exist_ok=True)
  bottlenecks = [(f'stride{n}', (64, 64), n) for n in (32, 16, 8)]
  _save('resnet50', *_resnet(resnet.Bottleneck, (3, 4, 6, 3), 3, bottlenecks))
  basic = [(f'stride{n}', (64, 64), n) for n in (16, 8)]
  _save('resnet18', *_resnet(resnet.BasicBlock, (2, 2, 2, 2), 3, basic))
  _save('convnext', *_convnext())
  _save('vit', *_vit())


def _save(name: str, weights: dict, cases: dict) -> None:
  np.savez_compressed(FOLDER / f'{name}.npz', **weights, **cases)


def _weights(model: torch.nn.Module) -> dict[str, np.ndarray]:
  """Fills a network with random numbers of half precision; returns them."""
  rng = np.random.default_rng(0)
  filled = {}
  for name, tensor in model.state_dict().items():
    shape = tuple(tensor.shape)
    leaf = name.rpartition('.')[-1]
    if leaf == 'num_batches_tracked':
      continue
    if leaf in ('bias', 'running_mean', 'cls_token', 'pos_embed'):
      values = 0.3 * rng.normal(size=shape)
    elif len(shape) == 1:  # Scales, variances, gammas.
      values = rng.uniform(0.5, 1.5, shape)
    else:
      values = rng.normal(size=shape) * (2 / np.prod(shape[1:])) ** 0.5
    filled[name] = values.astype(np.float16)
  tensors = {k: torch.from_numpy(v).float() for k, v in filled.items()}
  model.load_state_dict(tensors)
  model.eval()
  return {f'weights/{k}': v for k, v in filled.items()}


def _image(height: int, width: int) -> tuple[np.ndarray, torch.Tensor]:
  """Returns one image as uint8 NHWC, and as a network wants it."""
  rng = np.random.default_rng(height * width)
  image = rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
  tensor = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
  return image, (tensor - MEAN) / STD


def _case(
  name: str, image: np.ndarray, features: list[torch.Tensor]
) -> dict[str, np.ndarray]:
  arrays = {f'{name}/image': image}
  for i, feature in enumerate(features):
    arrays[f'{name}/feature{i}'] = feature.permute(0, 2, 3, 1).numpy()
  return arrays


@torch.no_grad()
def _resnet(
  block: type, depths: tuple[int, ...], width: int, cases: list
) -> tuple[dict, dict]:
  weights, arrays = {}, {}
  for name, size, stride in cases:
    model = resnet.ResNet(
      block,
      depths,
      num_classes=0,
      channels=tuple(width * 2**i for i in range(4)),
      output_stride=stride,
    )
    _narrow_stem(model, width)
    weights = _weights(model)
    image, x = _image(*size)
    x = model.maxpool(model.act1(model.bn1(model.conv1(x))))
    features = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
      x = stage(x)
      features.append(x)
    arrays |= _case(name, image, features)
  return weights, arrays


def _narrow_stem(model: Any, width: int) -> None:
  """Replaces what reads or writes the stem's 64 channels, timm's only choice.

  Args:
    model: A timm ResNet.
    width: Channels of the new stem.
  """
  conv = torch.nn.Conv2d
  model.conv1 = conv(3, width, 7, 2, 3, bias=False)
  model.bn1 = torch.nn.BatchNorm2d(width)
  block = model.layer1[0]
  old = block.conv1
  block.conv1 = conv(
    width, old.out_channels, old.kernel_size, 1, old.padding, bias=False
  )
  if block.downsample is not None:
    wide = block.downsample[0].out_channels
    if wide == width:
      # Basic blocks keep the stem's channels, so nothing is projected.
      block.downsample = None
    else:
      block.downsample[0] = conv(width, wide, 1, bias=False)


@torch.no_grad()
def _convnext() -> tuple[dict, dict]:
  model = convnext.ConvNeXt(
    num_classes=0, depths=(1, 1, 2, 1), dims=(8, 16, 32, 64)
  )
  weights = _weights(model)
  image, x = _image(96, 64)
  x = model.stem(x)
  features = []
  for stage in model.stages:
    x = stage(x)
    features.append(x)
  return weights, _case('plain', image, features)


@torch.no_grad()
def _vit() -> tuple[dict, dict]:
  model = vision_transformer.VisionTransformer(
    img_size=70,
    patch_size=14,
    embed_dim=16,
    depth=8,
    num_heads=2,
    num_classes=0,
    global_pool='token',
    init_values=1e-5,
    dynamic_img_size=True,
  )
  weights = _weights(model)
  arrays = {}
  for name, size, whole in (
    ('own', (70, 70), (70, 70)),
    ('other', (98, 56), (98, 56)),
    ('cut', (64, 90), (70, 84)),
  ):
    image, x = _image(*size)
    x = functional.interpolate(x, whole, mode='bilinear')
    layers = model.get_intermediate_layers(
      x, [1, 3, 5, 7], reshape=True, norm=True
    )
    rows, columns = (side // 14 for side in whole)
    sizes = [(4 * rows, 4 * columns), (2 * rows, 2 * columns)]
    sizes += [(rows, columns), ((rows + 1) // 2, (columns + 1) // 2)]
    features = [
      functional.interpolate(layer, size, mode='bilinear')
      for layer, size in zip(layers, sizes, strict=True)
    ]
    arrays |= _case(name, image, features)
  return weights, arrays


if __name__ == '__main__':
  main()
