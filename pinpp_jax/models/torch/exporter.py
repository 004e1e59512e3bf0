"""Turns variables into a torch state dict: the inverse of `importer`."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from flax import traverse_util
import numpy as np

from pinpp_jax.models import resnet
from pinpp_jax.models.torch import names


def tensors(
  model: resnet.Network, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Returns the variables of `model` under their torch names.

  Args:
    model: Network that the variables belong to.
    variables: {'params': ..., 'batch_stats': ...}; other collections stay out.

  Returns:
    Contiguous arrays in torch's layout and the variables' dtypes. Every batch
    normalisation also has `num_batches_tracked`, an int64 zero. Heads that an
    MPM variant does not build are absent; torch's `load_state_dict` then wants
    `strict=False`.
  """
  return _named(names.entries(model), variables)


def encoder_tensors(
  encoder: nn.Module, variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  """Returns the variables of an encoder under their names in timm.

  Args:
    encoder: A `resnet.Backbone`, `convnext.ConvNeXt` or `vit.ViT`.
    variables: {'params': ..., 'batch_stats': ...} of the encoder itself.

  Returns:
    As `tensors`, without the names in `names.besides`.

  Raises:
    UserError: If torch has no names for this kind of encoder.
  """
  return _named(names.encoder_entries(encoder), variables)


def _named(
  entries: Mapping[str, names.Entry], variables: Mapping[str, Any]
) -> dict[str, np.ndarray]:
  flat = traverse_util.flatten_dict(dict(variables))
  result = {}
  for name, entry in entries.items():
    array = names.to_torch(np.asarray(flat[entry.path]))
    result[name] = np.ascontiguousarray(array)
    module, _, leaf = name.rpartition('.')
    if leaf == 'running_var':
      result[f'{module}.num_batches_tracked'] = np.zeros((), np.int64)
  return result
