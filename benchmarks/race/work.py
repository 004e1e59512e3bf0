"""The work of a row of the race, and the best rates of the machine.

Work is counted from the network, for the lean step, in which the attack takes
no gradients of the weights, whatever a contestant computes.
"""

import argparse
import dataclasses
import functools
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.race import sides
from benchmarks.torch_rival import steps
from pinpp_jax.models import cpu_forms

# Primitives that are counted, with the rank of their result: convolutions and
# linear layers.
PRODUCTS = {'conv_general_dilated': 4, 'dot_general': 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
  """The work of one image, in convolutions and matrix products.

  Attributes:
    flops: Two for each multiplication with its addition.
    values: Array elements that products read and write, without weights: the
      traffic if all other operations are fused into them.
  """

  flops: float
  values: float

  def __add__(self, other: 'Work') -> 'Work':
    return Work(
      flops=self.flops + other.flops, values=self.values + other.values
    )

  def times(self, factor: float) -> 'Work':
    """Returns the work of doing it `factor` times."""
    return Work(flops=factor * self.flops, values=factor * self.values)


def forward(model: Any, size: int, parts: bool) -> tuple[Work, Work]:
  """Returns the work of a forward pass, and that of its first product."""
  image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  run = functools.partial(model.apply, train=False, parts=parts)
  # Rewritten products do the same work in more steps.
  with mock.patch.object(cpu_forms, 'fast_on_cpu', lambda: False):
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    init = functools.partial(model.init, train=False, parts=parts)
    values = jax.eval_shape(init, key, image)
    found = jax.make_jaxpr(lambda v, x: run(v, x))(values, image)
  products = [
    _product(equation)
    for equation in found.jaxpr.eqns
    if equation.primitive.name in PRODUCTS
    # Products of other ranks are interpolations.
    and equation.outvars[0].aval.ndim == PRODUCTS[equation.primitive.name]
  ]
  return sum(products, Work(flops=0, values=0)), products[0]


def _product(equation: Any) -> Work:
  x, kernel = (v.aval for v in equation.invars)
  (out,) = (v.aval for v in equation.outvars)
  if equation.primitive.name == 'dot_general':
    (contracted, _), _ = equation.params['dimension_numbers']
    depth = np.prod([x.shape[i] for i in contracted])
  else:
    depth = np.prod(kernel.shape[:-1])
  flops = 2.0 * out.size * depth
  return Work(flops=float(flops), values=float(x.size + out.size))


def of_step(model: Any, size: int, task: steps.Task) -> Work:
  """Returns the work of a training step on one image."""
  whole, first = forward(model, size, task.parts)
  # Forward, gradients of the inputs (but not of the images), of the weights.
  step = whole.times(3) + first.times(-1)
  if task.robust:
    passes = 2 * steps.STEPS + 1
    step += forward(model, size, False)[0].times(passes)
  return step


def ceilings(options: argparse.Namespace) -> dict[str, float]:
  """Returns the best measured rates: flops of a product, bytes of a copy."""
  cpu = jax.default_backend() == 'cpu'
  side, length = (2048, 2**24) if cpu else (8192, 2**28)
  if options.quick:
    side, length = 64, 2**10
  rng = np.random.default_rng(0)
  values = rng.standard_normal((side, side), np.float32)
  x = jnp.asarray(values, options.dtype)
  product = jax.jit(lambda x: x @ x)
  y = torch.tensor(values).to(sides.device())
  y = y.to(getattr(torch, options.dtype))
  line = jnp.asarray(rng.standard_normal(length, np.float32))
  copy = jax.jit(lambda x: x + 1)
  flops = 2.0 * side**3
  return {
    'flops': flops / min(_seconds(product, x), _seconds(lambda y: y @ y, y)),
    'bytes': 2 * 4 * length / _seconds(copy, line),
  }


def _seconds(call: Any, *arguments: Any, times: int = 5) -> float:
  """Returns the shortest time of a few calls."""
  seconds = []
  for _ in range(times + 1):
    start = time.perf_counter()
    wait(call(*arguments))
    seconds.append(time.perf_counter() - start)
  return min(seconds[1:])


def wait(result: Any) -> Any:
  """Returns a result of either library once it is computed."""
  if torch.cuda.is_available():
    torch.cuda.synchronize()
  return jax.block_until_ready(result)
