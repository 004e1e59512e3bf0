"""A segmenter's training step with many parts and with few.

  python -m benchmarks.segmenter
  python -m benchmarks.segmenter --batch=32 --size=384 --dtype=bfloat16
  python -m benchmarks.segmenter --quick

Only the parts of an image's class are scored, so the cost of the step should
not depend on the total number of parts. For comparison, the last row scores all
parts. Whole steps on random uint8 images, optimiser and averaging included.
Memory is XLA's plan of a compiled step.
"""

import argparse
import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.pieces import memory
from benchmarks.steps import Steps
from pinpp_jax import augment, models, optim, step
from pinpp_jax.machine import host_memory
from pinpp_jax.objectives import losses
from pinpp_jax.objectives.segment import Segment

MANY, FEW, OF_A_CLASS = 3308, 30, 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentOpen:
  """Cross entropy over the parts of all classes: the alternative."""

  def __call__(self, model, variables, batch, key):
    """Returns the loss, the new running statistics and scalars to log."""
    del key
    outputs, new = model.apply(
      variables, batch['image'], train=True, mutable=['batch_stats']
    )
    scores = outputs['parts'][0]
    stride = batch['parts'].shape[1] // scores.shape[1]
    target = batch['parts'][:, ::stride, ::stride]
    loss = jnp.mean(losses.cross_entropy(scores, target))
    return loss, (new['batch_stats'], {'loss': loss})


def recipe(options: argparse.Namespace, parts: int, objective: Any):
  """Returns the fixed objects of one row's step."""
  tx, schedule = optim.make({'name': 'adamw'}, 100, options.batch)
  return step.Recipe(
    model=models.Segmenter(
      num_parts=parts,
      encoder=options.encoder,
      width=options.width,
      channels=options.channels,
      dtype=options.dtype,
    ),
    objective=objective,
    augment=augment.Augment(num_classes=1, smoothing=0.0),
    attack=None,
    attack_ramp=functools.partial(
      optim.attack_ramp, steps_per_epoch=1, warmup_epochs=0.0, by_epoch=False
    ),
    tx=tx,
    schedule=schedule,
    frozen=(),
    ema_decay=0.999,
  )


def batches(options: argparse.Namespace, parts: int):
  """Returns an endless iterator over four random batches on the device."""
  rng = np.random.default_rng(0)
  size, side = options.batch, options.size
  made = []
  for _ in range(4):
    first = rng.integers(1, parts - OF_A_CLASS + 2, (size, 1, 1))
    local = rng.integers(0, OF_A_CLASS + 1, (size, side, side))
    ids = np.concatenate([np.zeros((size, 1), int), first[:, 0]], 1)
    ids = np.pad(ids, ((0, 0), (0, OF_A_CLASS - 1)))
    ids[:, 1:] = first[:, 0] + np.arange(OF_A_CLASS)
    made.append(
      {
        'image': rng.integers(0, 256, (size, side, side, 3), np.uint8),
        'label': np.zeros(size, np.int32),
        'parts': np.where(local > 0, first + local - 1, 0).astype(np.int32),
        'candidates': ids.astype(np.int32),
        'source': np.ones(size, np.int32),
        'id': rng.integers(0, 2**32, size, np.uint32),
      }
    )
  return itertools.cycle(jax.device_put(made))


def main() -> None:
  """Prints one table."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--batch', type=int, default=4)
  parser.add_argument('--size', type=int, default=128)
  parser.add_argument('--encoder', default='resnet50')
  parser.add_argument('--width', type=int, default=0)
  parser.add_argument('--channels', type=int, default=256)
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  if options.quick:
    options.encoder, options.width, options.channels = 'resnet10', 8, 8
    options.batch, options.size, options.rounds = 2, 32, 1

  host_memory.keep()  # As main does.
  few, known, opened = f'class known, {FEW}', f'class known, {MANY:,}', 'all'
  rows = {
    few: Steps(*_row(options, FEW, Segment())),
    known: Steps(*_row(options, MANY, Segment())),
    opened: Steps(*_row(options, MANY, SegmentOpen())),
  }
  size = {k: memory.mebibytes(row.compiled()) for k, row in rows.items()}
  seconds = timing.interleaved(rows, options.rounds)
  print(
    f'{jax.devices()[0].device_kind}, {options.encoder}, {options.size} px,'
    f' batch {options.batch}, {options.dtype}'
  )
  for name in rows:
    print(timing.row(name, seconds[name]), f'{size[name]:10.0f} MiB')
  for name, other in ((known, few), (opened, known)):
    time = timing.ratio(seconds[name], seconds[other])
    print(
      f'{name} parts against {other} parts: {time:.2f} x the time,'
      f' {size[name] / size[other]:.2f} x the memory'
    )


def _row(options: argparse.Namespace, parts: int, objective: Any):
  made = recipe(options, parts, objective)
  return made, batches(options, parts), options.size


if __name__ == '__main__':
  main()
