"""Checks that both sides compute the same, before anything is timed.

Compared are the network's outputs with running statistics, then one whole step:
its loss, and the changes of weights, statistics and their average.
"""

import contextlib
import time
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.race import sides
from benchmarks.steps import Steps
from pinpp_jax.models.torch import exporter

# Starts of an attack differ by rounding, and so may the sign of a gradient near
# 0: its effect on a step is small, but larger than rounding.
LIMITS = {'outputs': 1e-5, 'loss': 1e-4, 'change': 1e-2}


@contextlib.contextmanager
def exactly():
  """Makes both libraries compute in full float32 precision."""
  before = torch.backends.cuda.matmul.allow_tf32
  torch.backends.cuda.matmul.allow_tf32 = False
  with (
    jax.default_matmul_precision('highest'),
    torch.backends.cudnn.flags(allow_tf32=False),
  ):
    yield
  torch.backends.cuda.matmul.allow_tf32 = before


def check(
  row: str,
  ours: Steps,
  theirs: dict[str, sides.Opponent],
  batch: dict[str, np.ndarray],
) -> dict[str, Any]:
  """Takes everybody's first step; exits if they differ too much.

  Returns the differences, see `outputs` and `first_steps`.
  """
  found: dict[str, Any] = {}
  for opponent in theirs.values():
    model, values = ours.recipe.model, ours.state.variables
    image = batch['image'][:2]
    found['outputs'] = outputs(model, values, opponent.steps.frozen, image)
    break
  found |= first_steps(ours, theirs, batch)
  refuse(row, found)
  return found


def outputs(model: Any, values: Any, network: Any, image: np.ndarray) -> float:
  """Returns the largest difference of the outputs, relative to the largest.

  Args:
    model: Ours.
    values: Its weights and statistics.
    network: The one in PyTorch, in evaluation mode.
    image: (B, S, S, 3) uint8.
  """
  forward = jax.jit(
    lambda values, x: model.apply(values, x, train=False, parts=True)
  )
  ours: Any = forward(values, image.astype(np.float32) / 255)
  x = torch.tensor(image).permute(0, 3, 1, 2).to(sides.device()) / 255
  with torch.no_grad():
    logits, parts = network(x, parts=True)
  pairs = [(ours['logits'], logits.cpu().numpy())]
  for mine, theirs in zip(ours.get('parts', []), parts, strict=True):
    pairs.append((mine, theirs.permute(0, 2, 3, 1).cpu().numpy()))
  return max(
    float(np.abs(np.asarray(a) - b).max() / np.abs(b).max()) for a, b in pairs
  )


def first_steps(
  ours: Steps,
  theirs: dict[str, sides.Opponent],
  batch: dict[str, np.ndarray],
) -> dict[str, dict[str, float]]:
  """Takes everybody's first step; returns the opponents' differences to ours.

  Args:
    ours: Before its first step.
    theirs: Before theirs.
    batch: Batch of the first step.

  Returns:
    By opponent: 'loss', the relative difference, 'change', the difference of
    all changes of weights, statistics and averages, relative to ours, and
    'seconds', compilation included; also our 'seconds'.
  """
  start = sides.first_start(ours, batch)
  model: Any = ours.recipe.model
  before = exporter.tensors(model, jax.device_get(ours.state.variables))
  clock = time.perf_counter()
  value = float(ours()['loss'])
  after = _named(model, ours.state)
  found = {'ours': {'seconds': time.perf_counter() - clock}}
  for name, opponent in theirs.items():
    clock = time.perf_counter()
    loss = float(opponent(start))
    seconds = time.perf_counter() - clock
    steps = opponent.steps
    total = apart = 0.0
    for part, network in (('now', steps.network), ('ema', steps.average)):
      for key, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
          continue
        old = before[key].astype(np.float64)
        mine = after[part][key] - old
        other = tensor.detach().cpu().double().numpy() - old
        total += float((mine**2).sum())
        apart += float(((mine - other) ** 2).sum())
    found[name] = {
      'loss': abs(loss - value) / abs(value),
      'change': (apart / total) ** 0.5,
      'seconds': seconds,
    }
  return found


def _named(model: Any, state: Any) -> dict[str, dict[str, np.ndarray]]:
  return {
    'now': exporter.tensors(model, jax.device_get(state.variables)),
    'ema': exporter.tensors(model, jax.device_get(state.ema)),
  }


def refuse(row: str, found: dict[str, Any]) -> None:
  """Exits if a difference, by kind and opponent, is beyond its limit."""
  for name, value in found.items():
    if isinstance(value, dict):
      refuse(f'{row}, {name}', value)
    elif name in LIMITS and not value <= LIMITS[name]:
      raise SystemExit(
        f'{row}: {name} differs by {value:.1e}, the limit is'
        f' {LIMITS[name]:g}; not timed.'
      )
