"""What every variable is called, and how it lies, in a torch state dict.

The names are those of the official PartImageNet++ code for MPM and the
two-stage model, and of timm and torchvision for a plain ResNet.
"""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax.errors import UserError
from pinpp_jax.models import mpm, resnet, two_stage

# From the first element of a variable's path to the torch module. The official
# code spells "classifer".
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
_INNER = {
  'depthwise': 'conv1',
  'downsample_conv': 'downsample.0',
  'downsample_bn': 'downsample.1',
}
_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}


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
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  abstract: Any = jax.eval_shape(
    lambda key, image: model.init(key, image, train=False, parts=True),
    jax.random.key(0),
    image,
  )
  flat: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(abstract)
  return {
    _name(path, modules): Entry(path=path, shape=_torch_shape(value.shape))
    for path, value in flat.items()
  }


def _name(path: tuple[str, ...], modules: Mapping[str, str]) -> str:
  _, first, *inner, leaf = path
  words = [modules[first]]
  for word in inner:
    word = re.sub(r'^(layer\d)_(\d+)$', r'\1.\2', word)
    words.append(_INNER.get(word, word))
  return '.'.join(word for word in [*words, _LEAVES[leaf]] if word)


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
  return to_torch(np.broadcast_to(np.float32(0), shape)).shape


def to_torch(array: np.ndarray) -> np.ndarray:
  """Reorders HWIO to OIHW, (in, out) to (out, in); vectors stay."""
  return array.transpose({4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[array.ndim])


def to_flax(array: np.ndarray) -> np.ndarray:
  """Reorders OIHW to HWIO, (out, in) to (in, out); vectors stay."""
  return array.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim])
