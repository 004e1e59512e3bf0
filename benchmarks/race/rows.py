"""The rows of the race other than training steps."""

import argparse
from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import train_step
from benchmarks.pieces.parts_loss import SMOOTHING
from benchmarks.race import sides
from benchmarks.torch_rival import losses
from benchmarks.torch_rival import steps as steps_lib
from pinpp_jax import models
from pinpp_jax.attacks.apgd import APGD
from pinpp_jax.labelling.predict import Predictor
from pinpp_jax.objectives.parts import Parts

Call = Callable[[], Any]
MEMBERS = 9  # parts of a class
LEVELS = (8, 16, 32)  # pixels per cell
ATTACK = APGD(eps=1e-6, steps=10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """The contestants of a row, and the number that they must agree on.

  Attributes:
    ours: Makes our function without arguments, whose result is waited for.
    theirs: Makes an opponent's function, by style; None if there is none.
    value: Maps a result to the number to compare; None to compare nothing.
    limits: Largest relative differences to ours in float32 and in bfloat16.
  """

  ours: Callable[[argparse.Namespace], Call]
  theirs: Callable[[argparse.Namespace, steps_lib.Style], Call] | None = None
  value: Callable[[Any], Any] | None = None
  limits: tuple[float, float] = (0.0, 0.0)

  def makers(self, options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Returns the contestants' constructors by name, ours last."""
    made: dict[str, Callable[[], Any]] = {}
    if self.theirs is not None:
      for name, style in sides.styles(options).items():
        made[name] = functools.partial(self.theirs, options, style)
    return made | {'ours': functools.partial(self.ours, options)}

  def check(self, options: argparse.Namespace, title: str) -> dict[str, float]:
    """Returns everybody's number; exits if one is too far from ours."""
    if self.value is None:
      return {}
    makers = self.makers(options).items()
    found = {name: float(self.value(make()())) for name, make in makers}
    limit = self.limits[options.dtype != 'float32']
    for name, number in found.items():
      if abs(number - found['ours']) > limit * max(abs(found['ours']), 1):
        raise SystemExit(
          f'{title}: {name} gets {number:g}, ours {found["ours"]:g}; not timed.'
        )
    return found


def _logits(options: argparse.Namespace) -> tuple[list[np.ndarray], np.ndarray]:
  """Returns scores of parts at three levels, and true parts at the finest."""
  channels = train_step.PARTS + 1
  sizes = [options.size // n for n in LEVELS]
  rng = np.random.default_rng(0)
  draw = lambda n: rng.standard_normal(
    (options.batch, n, n, channels), np.float32
  )
  logits = [draw(n) for n in sizes]
  shape = options.batch, sizes[0], sizes[0]
  return logits, rng.integers(0, channels, shape, np.int32)


def our_parts_loss(options: argparse.Namespace) -> Call:
  """The loss on the parts, its targets, and its gradient to the logits."""
  objective = Parts(
    smoothing=SMOOTHING, reference_targets=True, denominator='all'
  )

  @jax.jit
  def call(logits, grid):
    batch = {'parts': grid, 'source': jnp.ones(options.batch, jnp.int32)}
    loss = lambda z: objective.part_loss(z, batch)[0]
    return jax.value_and_grad(loss)(logits)

  logits, grid = _logits(options)
  device_logits = [jnp.asarray(z, options.dtype) for z in logits]
  return functools.partial(call, device_logits, jnp.asarray(grid))


def their_parts_loss(
  options: argparse.Namespace, style: steps_lib.Style
) -> Call:
  """PyTorch's, dense or sparse."""
  logits, grid = _logits(options)
  target = torch.tensor(grid.astype(np.int64)).to(sides.device())
  weight = torch.ones(options.batch, device=sides.device())
  layout = torch.channels_last if style.tuned else torch.contiguous_format
  loss: Any = losses.dense_part_loss
  if style.lean:
    loss = losses.sparse_part_loss
  if style.mode:
    loss = torch.compile(loss, mode=style.mode, dynamic=False)
  dtype = getattr(torch, options.dtype)
  outputs = [
    torch.tensor(z).to(sides.device(), dtype).permute(0, 3, 1, 2)
    for z in logits
  ]
  outputs = [
    z.contiguous(memory_format=layout).requires_grad_() for z in outputs
  ]

  def call():
    value = loss(outputs, target, weight)
    return value.detach(), torch.autograd.grad(value, outputs)

  return call


def our_evaluation(options: argparse.Namespace) -> Call:
  """A batch of uint8 images to the number that is classified right."""
  model, values = _network(options)
  batch: Any = jax.device_put(train_step.random_batches(options)[0])

  @jax.jit
  def call(values, image, label):
    image = image.astype(jnp.float32) / 255
    logits = model.apply(values, image, train=False)['logits']
    return jnp.sum(jnp.argmax(logits, -1) == label), logits[0, 0]

  return functools.partial(call, values, batch['image'], batch['label'])


def their_evaluation(
  options: argparse.Namespace, style: steps_lib.Style
) -> Call:
  """PyTorch's."""
  steps = _opponent(options, style)
  batch = sides.on_torch(train_step.random_batches(options)[0])

  @torch.no_grad()
  def call():
    image = batch['image'].permute(0, 3, 1, 2).float() / 255
    image = image.contiguous(memory_format=steps.layout)
    with steps.autocast:
      logits = steps.frozen(image)
    return (logits.argmax(1) == batch['label']).sum(), logits[0, 0]

  if style.mode:
    return torch.compile(call, mode=style.mode, dynamic=False)
  return call


def our_apgd(options: argparse.Namespace) -> Call:
  """APGD-CE with ten steps, on images that all stay right, in float32."""
  options = _in_float32(options)
  model, values = _network(options)
  predict = jax.tree_util.Partial(
    lambda values, x: model.apply(values, x, train=False)['logits'], values
  )
  batch = train_step.random_batches(options)[0]
  image = jnp.asarray(batch['image'], jnp.float32) / 255
  label = jax.jit(predict)(image).argmax(-1)
  keys = jax.vmap(jax.random.key)(batch['id'])
  return functools.partial(ATTACK, keys, predict, image, label)


def their_apgd(options: argparse.Namespace, style: steps_lib.Style) -> Call:
  """The original's, by pyautoattack."""
  import pyautoattack

  options = _in_float32(options)
  steps = _opponent(options, style)
  network: Any = steps.frozen if style.lean else steps.network.eval()
  if style.mode:
    network = torch.compile(network, mode=style.mode, dynamic=False)
  attack = pyautoattack.AutoAttack(
    network,
    norm='Linf',
    eps=ATTACK.eps,
    version='custom',
    attacks=_names('apgd-ce'),
    device=torch.device(sides.device()),
  ).apgd
  attack.n_restarts, attack.n_iter = 1, ATTACK.steps
  batch = sides.on_torch(train_step.random_batches(options)[0])
  image = batch['image'].permute(0, 3, 1, 2).float() / 255
  image = image.contiguous(memory_format=steps.layout)
  with torch.no_grad():
    label = network(image).argmax(1)
  return functools.partial(attack.perturb, image, label)


def _names(name: str) -> Any:
  return [name]


def _in_float32(options: argparse.Namespace) -> argparse.Namespace:
  return argparse.Namespace(**vars(options) | {'dtype': 'float32'})


def our_label_step(options: argparse.Namespace) -> Call:
  """Probabilities of a class's parts by a segmenter; without an opponent."""
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
  return functools.partial(predictor, image, ids)


def _task(options: argparse.Namespace) -> steps_lib.Task:
  return sides.task(options, parts=False, robust=False)


def _network(options: argparse.Namespace) -> tuple[Any, Any]:
  """Returns our ResNet, and its weights and statistics."""
  model = sides.recipe(options, _task(options)).model
  return model, sides.variables(model)


def _opponent(options: argparse.Namespace, style: steps_lib.Style) -> Any:
  model, values = _network(options)
  return sides.opponent(options, model, values, style, _task(options))


ROWS = {
  'parts loss': Row(
    ours=our_parts_loss,
    theirs=their_parts_loss,
    value=lambda result: result[0],
    limits=(1e-5, 1e-2),
  ),
  'evaluation': Row(
    ours=our_evaluation,
    theirs=their_evaluation,
    value=lambda result: result[1],
    limits=(1e-3, 0.1),
  ),
  'APGD-CE, 10 steps': Row(ours=our_apgd, theirs=their_apgd),
  'label step': Row(ours=our_label_step),
}
