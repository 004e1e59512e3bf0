"""Reads and writes files of torch weights: safetensors and torch's own format.

PyTorch itself is needed only to read `.pth`, `.pt` and `.tar`, and only its
weights-only reader is used: no pickled code is ever executed.
"""

import argparse
from collections.abc import Mapping
import dataclasses
import importlib
import json
import os
import pathlib
import re
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from pinpp_jax.errors import UserError
from pinpp_jax.models import resnet
from pinpp_jax.models.torch import exporter

_KNOWN = ('torch.float16', 'torch.float32', 'torch.float64')
_ESCAPE = re.compile(r'\x1b\[[0-9;]*[A-Za-z]')  # Colours of a terminal.


def read_file(
  path: str | os.PathLike[str], key: str | None = None
) -> dict[str, np.ndarray]:
  """Returns the tensors of a file by name.

  Args:
    path: A `.safetensors`, `.pth`, `.pt` or `.tar` file.
    key: Name of the state dict in a file that holds several, for instance
      'state_dict_ema'. Not needed if there is only one.

  Raises:
    UserError: If the file is missing, of another kind or damaged, if PyTorch is
      needed and missing, or if `key` does not name a state dict.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f'{path} does not exist: give a file of weights.')
  if path.suffix == '.safetensors':
    try:
      found: Any = safetensors.numpy.load_file(path)
    # Besides its own error it raises KeyError for types that numpy lacks.
    except Exception as error:
      raise UserError(f'{path} is not a safetensors file: {error}.') from error
  elif path.suffix in ('.pth', '.pt', '.tar'):
    found = _read_torch(path)
  else:
    raise UserError(
      f'{path} is not a file of weights: its name must end in .safetensors,'
      ' .pth, .pt or .tar.'
    )
  return _choose(found, key, path)


def _read_torch(path: pathlib.Path) -> Any:
  """Returns the content of a torch file, with numpy arrays for tensors."""
  try:
    torch = importlib.import_module('torch')
  except ImportError as error:
    raise UserError(
      f'Reading {path} needs PyTorch: pip install "pinpp_jax[torch]".'
    ) from error
  # timm and the official code store their flags in checkpoints, as a plain
  # namespace of strings and numbers.
  with torch.serialization.safe_globals([argparse.Namespace]):
    try:
      found = torch.load(path, map_location='cpu', weights_only=True)
    # Of a damaged file PyTorch raises whatever its parsers stumble over.
    except Exception as error:
      raise UserError(
        f'{path} cannot be read by PyTorch with weights_only=True, the only way'
        f' used here: {_reason(error)} If the file is damaged or cut short,'
        ' fetch it again.'
      ) from error

  def convert(value: Any) -> Any:
    if isinstance(value, Mapping):
      return {str(k): convert(v) for k, v in value.items()}
    if isinstance(value, torch.Tensor):
      return _array(value)
    # A counter that numpy made is no weight, but a state dict may hold it.
    return np.asarray(value) if isinstance(value, np.generic) else value

  try:
    return convert(found)
  except Exception as error:
    raise UserError(
      f'{path} holds a tensor that is no plain array: {_reason(error)}'
    ) from error


def _array(tensor: Any) -> np.ndarray:
  """Returns a tensor of any layout and type that numpy can hold."""
  plain = tensor.detach()
  if plain.is_quantized:
    plain = plain.dequantize()
  if plain.layout != importlib.import_module('torch').strided:
    plain = plain.to_dense()
  # Types that numpy does not know: bfloat16, the kinds of float8.
  if plain.is_floating_point() and str(plain.dtype) not in _KNOWN:
    plain = plain.float()
  return plain.resolve_conj().resolve_neg().numpy()


def _reason(error: Exception) -> str:
  """Returns the line of an error that tells a person what is wrong.

  PyTorch ends its messages with long advice, and begins some with a traceback.
  """
  lines = [_ESCAPE.sub('', line).strip() for line in str(error).splitlines()]
  lines = [line for line in lines if line]
  if not lines:
    return f'{type(error).__name__}.'
  telling = [line for line in lines if 'nsupported' in line or 'Error' in line]
  line = (telling or lines)[0][:300]
  return line if line.endswith('.') else f'{line}.'


def _choose(
  found: Any, key: str | None, path: pathlib.Path
) -> dict[str, np.ndarray]:
  """Returns the state dict in `found`: itself, its `key`, its only one."""
  choices = {
    name: value
    for name, value in (found.items() if isinstance(found, Mapping) else ())
    if _is_state_dict(value)
  }
  if key is not None:
    if key not in choices:
      raise UserError(
        f'{path} has no state dict init.key={key!r}; {_say(choices)}'
      )
    return choices[key]
  if _is_state_dict(found):
    return dict(found)
  if len(choices) != 1:
    raise UserError(
      f'{path}: choose a state dict by its key with --config.init.key;'
      f' {_say(choices)}'
    )
  return next(iter(choices.values()))


def _say(choices: Mapping[str, Any]) -> str:
  return f'it has {sorted(choices)}.' if choices else 'it has none.'


def _is_state_dict(value: Any) -> bool:
  return (
    isinstance(value, Mapping)
    and bool(value)
    and all(isinstance(item, np.ndarray) for item in value.values())
  )


def write_file(
  path: str | os.PathLike[str],
  model: resnet.Network,
  variables: Mapping[str, Any],
) -> None:
  """Writes variables as safetensors under torch names, and a config.json.

  Args:
    path: The `.safetensors` file; its folder is made if missing. The
      config.json beside it has 'model' (the class) and its fields.
    model: Network that the variables belong to.
    variables: {'params': ..., 'batch_stats': ...}.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  fields = {
    field.name: getattr(model, field.name)
    for field in dataclasses.fields(model)
    if field.name not in ('parent', 'name')
  }
  config = {'model': type(model).__name__, **fields}
  data = safetensors.numpy.save(
    exporter.tensors(model, variables), metadata={'format': 'pt'}
  )
  _write(path, data)
  text = json.dumps(config, indent=2) + '\n'
  _write(path.parent / 'config.json', text.encode())


def _write(path: pathlib.Path, data: bytes) -> None:
  """Writes a file atomically."""
  partial = path.with_name(path.name + '.partial')
  partial.write_bytes(data)
  partial.replace(path)
