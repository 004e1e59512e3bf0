"""Turns torch state dicts into variables; every tensor must be used."""

from collections.abc import Iterable, Mapping, Set
import dataclasses
from typing import Any

from absl import logging
from flax import linen as nn
from flax import traverse_util
import numpy as np

from pinpp_jax.errors import UserError
from pinpp_jax.models import mpm, resnet
from pinpp_jax.models.torch import names as names_lib

# Most names in one error message.
_LISTED = 20
# Of data parallel and averaged models, and of torch.compile.
_WRAPPERS = ('module.', '_orig_mod.')
_COUNTERS = ('num_batches_tracked', 'n_averaged')


def variables(
  model: resnet.Network, tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """Returns the variables of `model` with the values of a torch state dict.

  Args:
    model: Network that the tensors belong to.
    tensors: Arrays under the names of the official PartImageNet++ code (MPM,
      TwoStage) or of timm and torchvision (ResNet). Prefixes of
      wrappers ('module.', '_orig_mod.') and counters (`num_batches_tracked`,
      `n_averaged`) are ignored; heads that an
      MPM variant does not build are dropped with a log line.

  Returns:
    {'params': ..., 'batch_stats': ...} of float32 numpy arrays.

  Raises:
    UserError: If a tensor is missing, left over or of another shape. All are
      named.
  """
  tensors = _without(_plain_names(tensors), unused(model))
  return _convert(names_lib.entries(model), tensors)


def backbone_variables(
  model: resnet.Network,
  tensors: Mapping[str, np.ndarray],
  *,
  classifier: bool = False,
) -> dict[str, Any]:
  """Returns variables of the backbone only, from a plain ResNet.

  For starting a model from ImageNet weights: replace the same subtrees of
  freshly initialised variables by the result.

  Args:
    model: Network whose backbone is to be filled.
    tensors: Arrays under timm's and torchvision's names of a plain ResNet.
    classifier: Whether to take `fc` too (MPM and ResNet, same classes); without
      it `fc` is dropped.

  Returns:
    {'params': {'backbone': ...}, 'batch_stats': {'backbone': ...}}, with
    'classifier' in 'params' if requested; float32 numpy arrays.

  Raises:
    UserError: As `variables`, or if `classifier` is set and the model's
      classifier is not that of a ResNet.
  """
  if classifier and not isinstance(model, mpm.MPM | resnet.ResNet):
    raise UserError(
      f'The classifier of {type(model).__name__} is not that of a ResNet:'
      ' import the backbone with classifier=False.'
    )
  fields = {
    field.name: getattr(model, field.name)
    for field in dataclasses.fields(resnet.Network)
    if field.name not in ('parent', 'name')
  }
  entries = names_lib.entries(resnet.ResNet(**fields))
  tensors = _plain_names(tensors)
  if not classifier:
    head = ('fc.weight', 'fc.bias')
    entries = {k: v for k, v in entries.items() if k not in head}
    tensors = {k: v for k, v in tensors.items() if k not in head}
  return _convert(entries, tensors)


def encoder_variables(
  encoder: nn.Module, tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """Returns the variables of an encoder with the values of a torch state dict.

  Args:
    encoder: A `resnet.Backbone`, `convnext.ConvNeXt` or `vit.ViT`.
    tensors: Arrays under timm's names of the whole network; a ResNet's are
      torchvision's too. Prefixes of wrappers ('module.', '_orig_mod.') and
      counters (`num_batches_tracked`, `n_averaged`) are ignored; the names in
      `names.besides` are dropped with a log line.

  Returns:
    {'params': ..., 'batch_stats': ...} of float32 numpy arrays; 'batch_stats'
    is {} without batch normalisation.

  Raises:
    UserError: If a tensor is missing, left over or of another shape (all are
      named), or if torch has no names for this kind of encoder.
  """
  entries = names_lib.encoder_entries(encoder)
  tensors = _without(_plain_names(tensors), names_lib.besides(encoder))
  return {'batch_stats': {}} | _convert(entries, tensors)


def unused(model: resnet.Network) -> set[str]:
  """Returns names that official checkpoints hold but `model` does not build.

  The official MPM has every head and top-down layer whatever its level.
  """
  if not isinstance(model, mpm.MPM):
    return set()
  whole = model.clone(level=3, top_down=True)
  return set(names_lib.entries(whole)) - set(names_lib.entries(model))


def _without(
  tensors: Mapping[str, np.ndarray], unwanted: Set[str]
) -> dict[str, np.ndarray]:
  """Drops the tensors named in `unwanted`, with a log line."""
  dropped = sorted(unwanted & set(tensors))
  if dropped:
    logging.info('Not part of this model, dropped: %s', ', '.join(dropped))
  return {k: v for k, v in tensors.items() if k not in unwanted}


def _plain_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Drops the prefixes of torch's wrappers, in any order, and the counters."""
  result = {}
  for name, value in tensors.items():
    while name.startswith(_WRAPPERS):
      name = name.partition('.')[2]
    if name in result:
      raise UserError(f'The file holds {name} twice, once in a wrapper.')
    if name.rpartition('.')[2] not in _COUNTERS:
      result[name] = value
  return result


def _convert(
  entries: Mapping[str, names_lib.Entry], tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  _check(entries, tensors)
  return traverse_util.unflatten_dict(
    {
      entry.path: np.ascontiguousarray(
        names_lib.to_flax(np.asarray(tensors[name])), dtype=np.float32
      )
      for name, entry in entries.items()
    }
  )


def _check(
  entries: Mapping[str, names_lib.Entry], tensors: Mapping[str, np.ndarray]
) -> None:
  """Raises UserError unless names and shapes agree."""
  missing = [f'{k} {e.shape}' for k, e in entries.items() if k not in tensors]
  extra = [f'{k} {np.shape(v)}' for k, v in tensors.items() if k not in entries]
  shapes = [
    f'{k} {np.shape(tensors[k])}, expected {e.shape}'
    for k, e in entries.items()
    if k in tensors and np.shape(tensors[k]) != e.shape
  ]
  problems = [
    f'{what}: {_listed(names)}'
    for what, names in (
      ('missing from the file', missing),
      ('left over in the file', extra),
      ('wrong shape', shapes),
    )
    if names
  ]
  if problems:
    raise UserError(
      'The tensors do not fit the model. '
      + '; '.join(problems)
      + '. Give the model that these weights are for, or other weights.'
    )


def _listed(names: Iterable[str]) -> str:
  names = list(names)
  more = f' and {len(names) - _LISTED} more' if len(names) > _LISTED else ''
  return ', '.join(names[:_LISTED]) + more
