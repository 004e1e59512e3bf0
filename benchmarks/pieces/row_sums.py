"""Sums of images over one axis against three, as attacks need them.

  JAX_PLATFORMS=cpu python -m benchmarks.pieces.row_sums
  python -m benchmarks.pieces.row_sums --quick

Thirty sums of a clipped difference in a loop, and the projection onto the L1
ball, which consists of such sums.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from pinpp_jax.attacks import projections

SUMS = 30


@functools.partial(jax.jit, static_argnames='rows')
def sums(size: jax.Array, cap: jax.Array, *, rows: bool) -> jax.Array:
  """Returns (B,) after `SUMS` sums, each of which shifts the next one."""
  if rows:
    size, cap = (x.reshape(len(x), -1) for x in (size, cap))
  axes = tuple(range(1, size.ndim))

  def step(_, cut):
    left = size - jnp.reshape(cut, (-1, *[1] * len(axes)))
    return cut + 1e-6 * jnp.sum(jnp.clip(left, 0, cap), axis=axes)

  return jax.lax.fori_loop(0, SUMS, step, jnp.zeros(len(size)))


def main() -> None:
  """Prints one table."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--size', type=int, default=32)
  parser.add_argument('--rounds', type=int, default=31)
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  if options.quick:
    options.batch, options.size, options.rounds = 2, 8, 1
  rng = np.random.default_rng(0)
  shape = (options.batch, options.size, options.size, 3)
  image, noise = (jnp.asarray(rng.random(shape), jnp.float32) for _ in 'ab')
  project = jax.jit(projections.l1)
  seconds = timing.interleaved(
    {
      'three axes': lambda: sums(image, noise, rows=False),
      'one axis': lambda: sums(image, noise, rows=True),
      'projection': lambda: project(image + 0.1 * noise, image, 5.0),
    },
    options.rounds,
  )
  print(
    f'{jax.devices()[0].device_kind}, {options.batch} images of'
    f' {options.size} px'
  )
  for name, values in seconds.items():
    print(timing.row(name, values))
  ratio = timing.ratio(seconds['three axes'], seconds['one axis'])
  print(f'one axis: {ratio:.2f} x as fast')


if __name__ == '__main__':
  main()
