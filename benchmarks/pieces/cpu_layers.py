"""The CPU rewrites of convolution and pooling: with against without.

  JAX_PLATFORMS=cpu python -m benchmarks.pieces.cpu_layers
  python -m benchmarks.pieces.cpu_layers --quick

Forward pass, gradient to the image and gradient to the weights of an MPM.
"""

import argparse
import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from pinpp_jax import models, state
from pinpp_jax.models import cpu_forms


def calls(options: argparse.Namespace, rewrite: bool):
  """Returns the three compiled functions of one setting, by name."""
  model = models.MPM(
    num_classes=12, num_parts=43, depth=options.depth, width=options.width
  )
  rng = np.random.default_rng(0)
  shape = (options.batch, options.size, options.size, 3)
  image = jnp.asarray(rng.random(shape), jnp.float32)

  def forward(variables, image):
    outputs: Any = model.apply(variables, image, train=False)
    return outputs['logits'].sum()

  def train(variables, image):
    outputs, _ = model.apply(
      variables, image, train=True, parts=True, mutable=['batch_stats']
    )
    return sum(jnp.sum(x) for x in jax.tree.leaves(outputs))

  functions = {
    'forward': forward,
    'image gradient': jax.grad(forward, argnums=1),
    'weight gradient': jax.grad(train, argnums=0),
  }
  # The setting is read while a network is built and traced.
  with mock.patch.object(cpu_forms, 'fast_on_cpu', lambda: rewrite):
    make = functools.partial(state.initial_variables, model, options.size)
    variables = jax.jit(make)(state.key(0))
    return {
      name: functools.partial(
        jax.jit(function).lower(variables, image).compile(), variables, image
      )
      for name, function in functions.items()
    }


def main() -> None:
  """Prints one table."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--size', type=int, default=96)
  parser.add_argument('--depth', type=int, default=10)
  parser.add_argument('--width', type=int, default=16)
  parser.add_argument('--rounds', type=int, default=11)
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  if options.quick:
    options.batch, options.size, options.width, options.rounds = 2, 32, 8, 1
  plain, rewritten = calls(options, False), calls(options, True)
  print(
    f'{jax.devices()[0].device_kind}, MPM, ResNet-{options.depth} width'
    f' {options.width}, {options.size} px, batch {options.batch}'
  )
  for name in plain:
    seconds = timing.interleaved(
      {'plain': plain[name], 'rewritten': rewritten[name]}, options.rounds
    )
    print(timing.row(f'{name}, plain', seconds['plain']))
    print(timing.row(f'{name}, rewritten', seconds['rewritten']))
    ratio = timing.ratio(seconds['plain'], seconds['rewritten'])
    print(f'{name}: {ratio:.2f} x as fast')


if __name__ == '__main__':
  main()
