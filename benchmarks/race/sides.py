"""Both sides of the race: the same weights, the same batches, the same task."""

import argparse
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import train_step
from benchmarks.steps import Steps
from benchmarks.torch_rival import steps as steps_lib
from benchmarks.torch_rival.mpm import MPM
from benchmarks.torch_rival.resnet import ResNet
from pinpp_jax import augment, objectives, step
from pinpp_jax.attacks import norms
from pinpp_jax.models.torch import exporter, importer, names
from pinpp_jax.objectives.parts import Parts
from pinpp_jax.tools.parity import golden

CLASSES = train_step.CLASSES


def recipe(options: argparse.Namespace, task: steps_lib.Task) -> step.Recipe:
  """Returns our step of a row: the reference's targets and best iterate.

  Without colour jitter, which the reference applies while loading images.
  """
  made = train_step.recipe(options, task.parts, task.robust)
  objective: Any = objectives.OBJECTIVES['classify']()
  if task.parts:
    objective = Parts(reference_targets=True, denominator='all')
  attack = made.attack
  if attack is not None:
    attack = dataclasses.replace(attack, best='batch')
  return dataclasses.replace(
    made,
    objective=objective,
    attack=attack,
    augment=augment.Augment(num_classes=CLASSES, color_jitter=0.0),
  )


def variables(model: Any) -> Any:
  """Returns weights and statistics derived from their torch names."""
  rule = golden.OwnRule()
  tensors = {
    name: rule.fill_array(name, entry.shape)
    for name, entry in names.entries(model).items()
  }
  return jax.tree.map(jnp.asarray, importer.variables(model, tensors))


def torch_network(
  options: argparse.Namespace, model: Any, values: Any, lean: bool
) -> Any:
  """Returns the network in PyTorch with the weights of ours."""
  shape = options.depth, options.width, CLASSES
  if hasattr(model, 'level'):
    network: Any = MPM(*shape, train_step.PARTS + 1, lean=lean)
  else:
    network = ResNet(*shape, activation='gelu')
  network.load_state_dict(
    {
      name: torch.tensor(np.array(value))
      for name, value in exporter.tensors(model, values).items()
    }
  )
  return network.to(device())


def device() -> str:
  """Returns PyTorch's device: 'cuda' or 'cpu'."""
  return 'cuda' if torch.cuda.is_available() else 'cpu'


def on_torch(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
  """Returns a batch as tensors on the device, without the ids."""
  wide = {'label': np.int64, 'parts': np.int64}
  return {
    name: torch.tensor(value.astype(wide.get(name, value.dtype))).to(device())
    for name, value in batch.items()
    if name != 'id'
  }


def first_start(steps: Steps, batch: dict[str, np.ndarray]) -> torch.Tensor:
  """Returns the start of the attack in our next step, (B, 3, S, S)."""
  key = step.keys(steps.key, steps.state.step)[1]
  own = step.image_keys(key, jnp.asarray(batch['id']))
  image = jnp.asarray(batch['image'], jnp.float32) / 255
  start = norms.random_start('linf', own, image, steps_lib.EPS)
  return torch.tensor(np.array(start)).permute(0, 3, 1, 2).to(device())


class Opponent:
  """One of PyTorch's steps, over the same batches as ours.

  Args:
    steps: The step.
    batches: On the device.
  """

  def __init__(
    self, steps: steps_lib.Steps, batches: list[dict[str, torch.Tensor]]
  ):
    self.steps, self._batches, self._taken = steps, batches, 0

  def __call__(self, start: torch.Tensor | None = None) -> torch.Tensor:
    """Takes one step and returns its loss, not awaited."""
    batch = self._batches[self._taken % len(self._batches)]
    self._taken += 1
    return self.steps(batch, start)


def styles(options: argparse.Namespace) -> dict[str, steps_lib.Style]:
  """Returns the opponents by name: R2 once for each mode of torch.compile."""
  found = {'R0': steps_lib.R0, 'R1': steps_lib.R1}
  if not options.compile:
    found['R2'] = steps_lib.R2
  for mode in options.compile:
    name = f'R2 {mode}'
    found[name] = dataclasses.replace(steps_lib.R2, mode=mode)
  wanted = options.opponents or ('R0', 'R1', 'R2')
  return {k: v for k, v in found.items() if k.split()[0] in wanted}


def task(
  options: argparse.Namespace, *, parts: bool, robust: bool
) -> steps_lib.Task:
  """Returns a row's task, at the learning rate of our first step."""
  schedule: Any = train_step.recipe(options, parts, robust).schedule
  return steps_lib.Task(
    parts=parts,
    robust=robust,
    classes=CLASSES,
    learning_rate=float(schedule(0)),
    half=options.dtype != 'float32',
  )


def opponent(
  options: argparse.Namespace,
  model: Any,
  values: Any,
  style: steps_lib.Style,
  task: steps_lib.Task,
) -> steps_lib.Steps:
  """Returns one of PyTorch's steps, from the weights of ours."""
  network = torch_network(options, model, values, style.lean)
  return steps_lib.Steps(network, style, task)
