"""The rows of the race that are no training steps.

Each returns its contestants by name, functions without arguments whose results
are waited for, after a check that all compute the same.
"""

import argparse
from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import race_sides, torch_losses, torch_steps, train_step
from benchmarks.parts_loss import SMOOTHING
from pinpp_jax import models
from pinpp_jax.attacks.apgd import APGD
from pinpp_jax.labelling.predict import Predictor
from pinpp_jax.objectives.parts import Parts

Contestants = dict[str, Callable[[], Any]]
MEMBERS = 9  # parts of a class
LEVELS = (8, 16, 32)  # pixels per cell


def parts_loss(options: argparse.Namespace) -> Contestants:
  """The loss on the parts, its targets, and its gradient to the logits."""
  channels = train_step.PARTS + 1
  sizes = [options.size // n for n in LEVELS]
  rng = np.random.default_rng(0)
  draw = lambda n: rng.standard_normal(
    (options.batch, n, n, channels), np.float32
  )
  logits = [draw(n) for n in sizes]
  shape = options.batch, sizes[0], sizes[0]
  grid = rng.integers(0, channels, shape, np.int32)
  objective = Parts(
    smoothing=SMOOTHING, reference_targets=True, denominator='all'
  )

  @jax.jit
  def ours(logits, grid):
    batch = {'parts': grid, 'source': jnp.ones(options.batch, jnp.int32)}
    loss = lambda z: objective.part_loss(z, batch)[0]
    return jax.value_and_grad(loss)(logits)

  made: Contestants = {}
  target = torch.tensor(grid.astype(np.int64)).to(race_sides.device())
  weight = torch.ones(options.batch, device=race_sides.device())
  dtype = getattr(torch, options.dtype)
  for name, style in race_sides.styles(options).items():
    layout = torch.channels_last if style.tuned else torch.contiguous_format
    loss: Any = torch_losses.dense_part_loss
    if style.lean:
      loss = torch_losses.sparse_part_loss
    if style.mode:
      loss = torch.compile(loss, mode=style.mode, dynamic=False)
    outputs = [
      torch.tensor(z).to(race_sides.device(), dtype).permute(0, 3, 1, 2)
      for z in logits
    ]
    outputs = [
      z.contiguous(memory_format=layout).requires_grad_() for z in outputs
    ]
    made[name] = functools.partial(
      _value_and_gradient, loss, outputs, target, weight
    )
  device_logits = [jnp.asarray(z, options.dtype) for z in logits]
  made['ours'] = functools.partial(ours, device_logits, jnp.asarray(grid))
  values = {name: float(call()[0]) for name, call in made.items()}
  _same('parts loss', values, 1e-5 if options.dtype == 'float32' else 1e-2)
  return made


def _value_and_gradient(loss, outputs, target, weight):
  value = loss(outputs, target, weight)
  return value.detach(), torch.autograd.grad(value, outputs)


def evaluation(options: argparse.Namespace) -> Contestants:
  """A batch of uint8 images to the number that is classified rightly."""
  model: Any = race_sides.recipe(options, _task(options)).model
  values = race_sides.variables(model)
  batch = train_step.random_batches(options)[0]

  @jax.jit
  def ours(values, image, label):
    image = image.astype(jnp.float32) / 255
    logits = model.apply(values, image, train=False)['logits']
    return jnp.sum(jnp.argmax(logits, -1) == label), logits[0, 0]

  device: Any = jax.device_put(batch)
  made: Contestants = {}
  for name, style in race_sides.styles(options).items():
    steps = race_sides.opponent(options, model, values, style, _task(options))
    call = functools.partial(_evaluate, steps, race_sides.on_torch(batch))
    if style.mode:
      call = torch.compile(call, mode=style.mode, dynamic=False)
    made[name] = call
  made['ours'] = functools.partial(
    ours, values, device['image'], device['label']
  )
  first = {name: float(call()[1]) for name, call in made.items()}
  _same('evaluation', first, 1e-3 if options.dtype == 'float32' else 0.1)
  return made


@torch.no_grad()
def _evaluate(steps, batch):
  image = batch['image'].permute(0, 3, 1, 2).float() / 255
  image = image.contiguous(memory_format=steps.layout)
  with steps.autocast:
    logits = steps.frozen(image)
  return (logits.argmax(1) == batch['label']).sum(), logits[0, 0]


def apgd(options: argparse.Namespace) -> Contestants:
  """APGD-CE of ten steps, on images that all stay right, in float32."""
  options = argparse.Namespace(**vars(options) | {'dtype': 'float32'})
  import pyautoattack

  model: Any = race_sides.recipe(options, _task(options)).model
  values = race_sides.variables(model)
  batch = train_step.random_batches(options)[0]
  image = batch['image'].astype(np.float32) / 255
  predict = jax.tree_util.Partial(
    lambda values, x: model.apply(values, x, train=False)['logits'], values
  )
  label = np.asarray(jax.jit(predict)(image)).argmax(-1)
  attack = APGD(eps=1e-6, steps=10)
  keys = jax.vmap(jax.random.key)(batch['id'])
  made: Contestants = {}
  for name, style in race_sides.styles(options).items():
    steps = race_sides.opponent(options, model, values, style, _task(options))
    network: Any = steps.frozen if style.lean else steps.network.eval()
    if style.mode:
      network = torch.compile(network, mode=style.mode, dynamic=False)
    theirs = pyautoattack.AutoAttack(
      network,
      norm='Linf',
      eps=attack.eps,
      version='custom',
      attacks=_names('apgd-ce'),
      device=torch.device(race_sides.device()),
    ).apgd
    theirs.n_restarts, theirs.n_iter = 1, attack.steps
    x = torch.tensor(image).permute(0, 3, 1, 2).to(race_sides.device())
    x = x.contiguous(memory_format=steps.layout)
    y = torch.tensor(label).to(race_sides.device())
    made[name] = functools.partial(theirs.perturb, x, y)
  made['ours'] = functools.partial(
    attack, keys, predict, jnp.asarray(image), jnp.asarray(label)
  )
  return made


def _names(name: str) -> Any:
  return [name]


def label(options: argparse.Namespace) -> Contestants:
  """Probabilities of a class's parts by a segmenter; nobody else has one."""
  model = models.Segmenter(
    num_parts=train_step.PARTS,
    encoder=f'resnet{options.depth}',
    width=options.width,
    dtype=options.dtype,
  )
  rng = np.random.default_rng(0)
  shape = options.batch, options.size, options.size, 3
  image = rng.integers(0, 256, shape, np.uint8)
  ids = np.tile(np.arange(MEMBERS + 1, dtype=np.int32), (options.batch, 1))
  init = functools.partial(model.init, train=False, parts=True)
  values = jax.jit(init)(
    jax.random.key(0, impl='rbg'), jnp.zeros((1, *shape[1:])), candidates=ids
  )
  predictor = Predictor(model, values, options.batch)
  return {'ours': functools.partial(predictor, image, ids)}


def _task(options: argparse.Namespace) -> torch_steps.Task:
  return race_sides.task(options, parts=False, robust=False)


def _same(row: str, values: dict[str, float], limit: float) -> None:
  """Ends the race if a value differs from ours."""
  for name, value in values.items():
    if abs(value - values['ours']) > limit * max(abs(values['ours']), 1):
      raise SystemExit(
        f'{row}: {name} gets {value:g}, ours {values["ours"]:g}; not timed.'
      )


ROWS: dict[str, Callable[[argparse.Namespace], Contestants]] = {
  'parts loss': parts_loss,
  'evaluation': evaluation,
  'APGD-CE, 10 steps': apgd,
  'label step': label,
}
