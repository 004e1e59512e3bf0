"""Sparse against dense parts loss: value and gradient, time and memory.

  python -m benchmarks.pieces.parts_loss
  python -m benchmarks.pieces.parts_loss --batch=64 --dtype=bfloat16
  python -m benchmarks.pieces.parts_loss --quick

The dense form follows the definition, with soft targets as arrays of the
logits' size, as in the PyTorch reference. Both are compiled by XLA and compared
before they are timed. Memory is XLA's plan of a compiled call: arguments,
outputs and temporaries.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.pieces import memory
from pinpp_jax.objectives.parts import Parts

SMOOTHING = 0.1


def dense_loss(logits: list[jax.Array], batch: dict[str, jax.Array]):
  """Returns the parts loss as it is defined, over dense soft targets."""
  channels = logits[0].shape[-1]
  finest = jax.nn.one_hot(batch['parts'], channels)
  weight = jnp.any(batch['parts'] > 0, axis=(1, 2))[:, None, None]
  levels = []
  for z in logits:
    batch_size, height, width, _ = z.shape
    step = finest.shape[1] // height
    blocks = finest.reshape(batch_size, height, step, width, step, channels)
    target = blocks.mean((2, 4))
    target = (1 - SMOOTHING) * target + SMOOTHING / channels
    log_p = jax.nn.log_softmax(z.astype(jnp.float32))
    cross_entropy = -jnp.sum(target * log_p, axis=-1)
    focal = (1 - jnp.exp(-cross_entropy)) ** 2 * cross_entropy
    count = jnp.sum(weight) * height * width
    levels.append(jnp.sum(focal * weight) / count)
  return sum(levels) / len(levels)


def sparse_loss(logits: list[jax.Array], batch: dict[str, jax.Array]):
  """Returns the parts loss that training uses."""
  return Parts(smoothing=SMOOTHING).part_loss(logits, batch)[0]


def main() -> None:
  """Prints one table."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--channels', type=int, default=3311)
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  if options.quick:
    options.batch, options.channels, options.rounds = 2, 50, 1

  rng = np.random.default_rng(0)
  logits = [
    jnp.asarray(
      rng.standard_normal((options.batch, n, n, options.channels)),
      options.dtype,
    )
    for n in (28, 14, 7)
  ]
  parts = rng.integers(0, options.channels, (options.batch, 28, 28))
  batch = {
    'parts': jnp.asarray(parts),
    'source': jnp.ones(options.batch, jnp.int32),
  }
  compiled = {
    name: jax.jit(jax.value_and_grad(loss)).lower(logits, batch).compile()
    for name, loss in {'dense': dense_loss, 'sparse': sparse_loss}.items()
  }
  calls = {
    name: functools.partial(call, logits, batch)
    for name, call in compiled.items()
  }
  values = {name: float(call()[0]) for name, call in calls.items()}
  np.testing.assert_allclose(values['sparse'], values['dense'], rtol=1e-5)

  seconds = timing.interleaved(calls, options.rounds)
  print(
    f'{jax.devices()[0].device_kind}, batch {options.batch}, levels 28 14 7,'
    f' {options.channels} channels, {options.dtype}; loss'
    f' {values["dense"]:.6f} (dense) {values["sparse"]:.6f} (sparse)'
  )
  size = {name: memory.mebibytes(call) for name, call in compiled.items()}
  for name in calls:
    print(timing.row(name, seconds[name]), f'{size[name]:10.0f} MiB')
  faster = timing.ratio(seconds['dense'], seconds['sparse'])
  less = size['sparse'] / size['dense']
  print(f'sparse is {faster:.1f} x as fast and needs {less:.2f} x the memory')


if __name__ == '__main__':
  main()
