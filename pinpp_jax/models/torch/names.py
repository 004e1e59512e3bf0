"""Name and axis order of every variable in a torch state dict.

The names are those of the official PartImageNet++ code for MPM and the
two-stage model, of timm and torchvision for a plain ResNet, and of timm for the
other encoders.
"""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax.errors import UserError
from pinpp_jax.models import convnext, mpm, resnet, two_stage, vit

# First element of a variable's path -> torch module. The official code spells
# "classifer".
_RESNET = {'backbone': '', 'classifier': 'fc'}
_MPM = {
  'backbone': 'segmenter',
  'classifier': 'classifer.2',
  **{f'compact{i}_conv': f'cp{i}.0' for i in (1, 2, 3)},
  **{f'compact{i}_bn': f'cp{i}.1' for i in (1, 2, 3)},
  **{f'head{i}': f'segmenter_head{i}.1' for i in (1, 2, 3)},
  **{f'up{i}': f'up_layer{i}.1' for i in (1, 2)},
}
_TWO_STAGE = {
  'backbone': 'segmenter',
  'head_bn': 'segmenter_head.1',
  'head': 'segmenter_head.2',
  'conv': 'classifer.1',
  'conv_bn': 'classifer.2',
  'hidden': 'classifer.5',
  'hidden_bn': 'classifer.6',
  'classifier': 'classifer.8',
}
_MODULES: Mapping[type, Mapping[str, str]] = {
  resnet.ResNet: _RESNET,
  mpm.MPM: _MPM,
  two_stage.TwoStage: _TWO_STAGE,
}
# Any other element -> torch name; names that match no pattern are kept.
_INNER = {
  r'depthwise': r'conv1',
  r'downsample_conv': r'downsample.0',
  r'downsample_bn': r'downsample.1',
  r'layer(\d)_(\d+)': r'layer\1.\2',
  r'stem_conv': r'stem.0',
  r'stem_norm': r'stem.1',
  r'downsample(\d)_norm': r'stages.\1.downsample.0',
  r'downsample(\d)_conv': r'stages.\1.downsample.1',
  r'stage(\d)_(\d+)': r'stages.\1.blocks.\2',
  r'patch_embed': r'patch_embed.proj',
  r'block(\d+)': r'blocks.\1',
  r'(qkv|proj)': r'attn.\1',
  r'(fc1|fc2)': r'mlp.\1',
}
_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
  'gamma': 'gamma',
  'gamma1': 'ls1.gamma',
  'gamma2': 'ls2.gamma',
  'cls_token': 'cls_token',
  'pos_embed': 'pos_embed',
}
# Names in files of an encoder's weights that are not used: the classifier, and
# DINOv2's mask token.
_BESIDES: Mapping[type, frozenset[str]] = {
  resnet.Backbone: frozenset({'fc.weight', 'fc.bias'}),
  convnext.ConvNeXt: frozenset(
    {'head.norm.weight', 'head.norm.bias', 'head.fc.weight', 'head.fc.bias'}
  ),
  vit.ViT: frozenset({'head.weight', 'head.bias', 'mask_token'}),
}

# Axis order by number of axes: kernels of convolutions and matrices. Arrays of
# one or three axes have the same order in both.
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}
_TO_FLAX = {4: (2, 3, 1, 0), 2: (1, 0)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """One variable: its path from the collection down, and its torch shape."""

  path: tuple[str, ...]
  shape: tuple[int, ...]


def entries(model: resnet.Network) -> dict[str, Entry]:
  """Returns every variable of `model` under its torch name.

  Raises:
    UserError: If torch has no names for this kind of model.
  """
  if type(model) not in _MODULES:
    raise UserError(f'{type(model).__name__} has no torch names.')
  modules = _MODULES[type(model)]
  return {
    _name(modules[entry.path[1]], entry.path[2:]): entry
    for entry in _variables(model, parts=True)
  }


def encoder_entries(encoder: nn.Module) -> dict[str, Entry]:
  """Returns every variable of an encoder under its name in timm.

  Args:
    encoder: A `resnet.Backbone`, `convnext.ConvNeXt` or `vit.ViT`.

  Raises:
    UserError: If torch has no names for this kind of encoder.
  """
  if type(encoder) not in _BESIDES:
    raise UserError(f'{type(encoder).__name__} has no torch names.')
  return {_name('', entry.path[1:]): entry for entry in _variables(encoder)}


def besides(encoder: nn.Module) -> frozenset[str]:
  """Returns names in files of an encoder's weights that are not used."""
  return _BESIDES.get(type(encoder), frozenset())


def _variables(module: nn.Module, **options: Any) -> list[Entry]:
  """Returns every variable of a module without computing any."""
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  abstract: Any = jax.eval_shape(
    lambda key, image: module.init(key, image, train=False, **options),
    jax.random.key(0),
    image,
  )
  flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(abstract)
  return [
    Entry(path=path, shape=_torch_shape(value.shape))
    for path, value in flat.items()
  ]


def _name(module: str, path: tuple[str, ...]) -> str:
  """Returns the torch name of a variable at `path` inside a torch module."""
  *inner, leaf = path
  words = [module, *map(_word, inner), _LEAVES[leaf]]
  return '.'.join(word for word in words if word)


def _word(word: str) -> str:
  for pattern, replacement in _INNER.items():
    match = re.fullmatch(pattern, word)
    if match:
      return match.expand(replacement)
  return word


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
  return to_torch(np.broadcast_to(np.float32(0), shape)).shape


def to_torch(array: np.ndarray) -> np.ndarray:
  """Reorders HWIO to OIHW, (in, out) to (out, in); others stay."""
  return array.transpose(_TO_TORCH.get(array.ndim, range(array.ndim)))


def to_flax(array: np.ndarray) -> np.ndarray:
  """Reorders OIHW to HWIO, (out, in) to (in, out); others stay."""
  return array.transpose(_TO_FLAX.get(array.ndim, range(array.ndim)))
