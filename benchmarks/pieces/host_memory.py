"""Training steps on a CPU with freed memory kept, against returned.

  pip install -e '.[torch]'
  JAX_PLATFORMS=cpu python -m benchmarks.pieces.host_memory
  python -m benchmarks.pieces.host_memory --quick

The same steps of MPM in two processes that take turns. Pages are those that the
kernel cleared per step. The module that makes them take turns needs PyTorch.
"""

import argparse
import statistics

import jax

from benchmarks import timing, train_step
from benchmarks.race import turns
from benchmarks.steps import Steps
from pinpp_jax.machine import host_memory

PREPARE = {'given back': turns.nothing, 'kept': host_memory.keep}
STEPS = {'MPM clean': False, 'MPM AT': True}


def steps(options: argparse.Namespace, robust: bool) -> Steps:
  """Returns training steps before their first."""
  recipe = train_step.recipe(options, parts=True, robust=robust)
  return Steps(recipe, train_step.batches(options), options.size)


def measure(options: argparse.Namespace, name: str) -> None:
  """Prints a row for each setting, and their ratio."""
  rules = turns.Rules(warm=2, steps=options.steps, clock='wall')
  both = {
    way: turns.Contestant(steps, (options, STEPS[name]), rules, prepare)
    for way, prepare in PREPARE.items()
  }
  seconds: dict[str, list[float]] = {way: [] for way in both}
  for _ in range(options.rounds):
    for way, one in both.items():
      seconds[way].append(one.block())
  for way, one in both.items():
    end = one.end()
    print(
      timing.row(f'{name}, {way}', seconds[way]),
      f'{end["pages"]:9,.0f} pages {end["mebibytes"]:7,.0f} MiB',
    )
  ratio = timing.ratio(seconds['given back'], seconds['kept'])
  rate = options.batch / statistics.median(seconds['kept'])
  print(f'{name}: {ratio:.2f} x as fast, {rate:.3g} images/s', flush=True)


def main() -> None:
  """Prints one table."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--rows', nargs='+', choices=STEPS, default=[*STEPS])
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--size', type=int, default=224)
  parser.add_argument('--depth', type=int, default=50)
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--steps', type=int, default=2, help='in a turn')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  if options.quick:
    options.batch, options.size, options.depth = 2, 32, 10
    options.width, options.steps, options.rounds = 8, 1, 1
    options.rows = ['MPM clean']
  print(
    f'{jax.devices()[0].device_kind}, MPM, ResNet-{options.depth} width'
    f' {options.width}, {options.size} px, batch {options.batch},'
    f' {options.dtype}'
  )
  for name in options.rows:
    measure(options, name)


if __name__ == '__main__':
  main()
