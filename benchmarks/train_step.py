"""The whole training step: adversarial against clean, with and without parts.

  python -m benchmarks.train_step
  python -m benchmarks.train_step --batch=256 --dtype=bfloat16   (one GPU)
  python -m benchmarks.train_step --quick

Rows are steps of the published recipes (PGD-2) on random uint8 images, fresh
for every call, optimiser and averaging included. FLOPs predict a ratio of 2.68
for the plain network with the best iterate of the attack, 2.42 for MPM.
"""

import argparse
import functools
import itertools

import jax
import numpy as np

from benchmarks import timing
from benchmarks.steps import Steps
from pinpp_jax import attacks, augment, models, objectives, optim, step
from pinpp_jax.machine import host_memory

CLASSES, PARTS = 1000, 3310


def recipe(options: argparse.Namespace, parts: bool, robust: bool):
  """Returns the fixed objects of one row's step."""
  name, objective = ('mpm', 'parts') if parts else ('resnet', 'classify')
  eps = 4 / 255
  attack = attacks.ATTACKS['pgd'](
    norm='linf', eps=eps, steps=2, step_size=eps, best='example'
  )
  tx, schedule = optim.make({'name': 'sgd'}, 100, options.batch)
  return step.Recipe(
    model=models.MODELS[name](
      num_classes=CLASSES,
      num_parts=PARTS,
      depth=options.depth,
      width=options.width,
      activation='gelu',
      dtype=options.dtype,
    ),
    objective=objectives.OBJECTIVES[objective](),
    augment=augment.Augment(num_classes=CLASSES),
    attack=attack if robust else None,
    attack_ramp=functools.partial(
      optim.attack_ramp,
      steps_per_epoch=100,
      warmup_epochs=0.0,
      by_epoch=False,
    ),
    tx=tx,
    schedule=schedule,
    frozen=(),
    ema_decay=0.9998,
  )


def random_batches(options: argparse.Namespace) -> list[dict[str, np.ndarray]]:
  """Returns eight random batches."""
  rng = np.random.default_rng(0)
  size, side = options.batch, options.size
  return [
    {
      'image': rng.integers(0, 256, (size, side, side, 3), np.uint8),
      'label': rng.integers(0, CLASSES, size, np.int32),
      'parts': rng.integers(
        0, PARTS + 1, (size, side // 8, side // 8), np.int32
      ),
      'source': np.ones(size, np.int32),
      'id': rng.integers(0, 2**32, size, np.uint32),
    }
    for _ in range(8)
  ]


def batches(options: argparse.Namespace):
  """Returns an endless iterator over eight random batches on the device."""
  return itertools.cycle(jax.device_put(random_batches(options)))


def main() -> None:
  """Prints one table."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--size', type=int, default=224)
  parser.add_argument('--depth', type=int, default=50)
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  if options.quick:
    options.batch, options.size, options.depth = 2, 32, 10
    options.width, options.rounds = 8, 1

  host_memory.keep()  # As main does.
  rows = {
    name: Steps(recipe(options, *kind), batches(options), options.size)
    for name, kind in {
      'clean': (False, False),
      'adversarial': (False, True),
      'clean, parts': (True, False),
      'adversarial, parts': (True, True),
    }.items()
  }
  seconds = timing.interleaved(rows, options.rounds)
  print(
    f'{jax.devices()[0].device_kind}, ResNet-{options.depth} width'
    f' {options.width}, {options.size} px, batch {options.batch},'
    f' {options.dtype}'
  )
  for name in rows:
    print(timing.row(name, seconds[name]))
  plain = timing.ratio(seconds['adversarial'], seconds['clean'])
  parts = timing.ratio(seconds['adversarial, parts'], seconds['clean, parts'])
  print(f'adversarial / clean: {plain:.2f} plain, {parts:.2f} with parts')


if __name__ == '__main__':
  main()
