"""The race: our training step against PyTorch's, side by side.

  pip install -e '.[torch]'
  python -m benchmarks.race                                           (CPU)
  python -m benchmarks.race --batch=256 --dtype=bfloat16 --blocks=5 --steps=50
  python -m benchmarks.race --rows 'MPM AT' --compile --json=FILE
  python -m benchmarks.race --memory --rows 'MPM AT'
  OMP_WAIT_POLICY=passive python -m benchmarks.race --clock=cpu
  python -m benchmarks.race --quick

R0 is the PyTorch reference's step as released, its configuration repaired:
NCHW, float16 on a GPU, dense soft targets, an attack that makes gradients of
the weights too. R1 is R0 with channels last, tuned kernels and nothing asked of
the device. R2 is the strongest that we can write: bfloat16 on a GPU, gradients
of the images alone, sparse targets, torch.compile.

All start from the same weights and see the same random uint8 images, another
batch at every step; optimiser, statistics and averaging are part of a step.
Nothing is timed before all have made the same first step in float32. Without
torch.compile (`--compile` with no mode) R2 runs eagerly, and is called R2.
"""

import argparse
import dataclasses
import itertools
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import torch

from benchmarks import (
  memory,
  race_agreement,
  race_rows,
  race_sides,
  race_work,
  timing,
  train_step,
)
from benchmarks.steps import Steps
from pinpp_jax import perf
from pinpp_jax.data import files

STEPS = {
  'clean': dict(parts=False, robust=False),
  'MPM clean': dict(parts=True, robust=False),
  'AT': dict(parts=False, robust=True),
  'MPM AT': dict(parts=True, robust=True),
}

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


class Block:
  """Several calls in a row, of which the last is waited for."""

  def __init__(self, call: Any, steps: int):
    self._call, self._steps = call, steps

  def __call__(self) -> None:
    """Makes the calls."""
    result = None
    for _ in range(self._steps):
      result = self._call()
    race_work.wait(result)


def ours(options: argparse.Namespace, row: str) -> Steps:
  """Returns our training step before its first call."""
  recipe = race_sides.recipe(options, race_sides.task(options, **STEPS[row]))
  batches = itertools.cycle(jax.device_put(train_step.random_batches(options)))
  values = race_sides.variables(recipe.model)
  return Steps(recipe, batches, options.size, values)


def theirs(
  options: argparse.Namespace, row: str
) -> dict[str, race_sides.Opponent]:
  """Returns PyTorch's training steps by name, from the same weights."""
  task = race_sides.task(options, **STEPS[row])
  model = race_sides.recipe(options, task).model
  values = race_sides.variables(model)
  batches = [
    race_sides.on_torch(batch) for batch in train_step.random_batches(options)
  ]
  return {
    name: race_sides.Opponent(
      race_sides.opponent(options, model, values, style, task), batches
    )
    for name, style in race_sides.styles(options).items()
  }


def check(
  options: argparse.Namespace,
  row: str,
  sides: tuple[Steps, dict[str, race_sides.Opponent]] | None,
) -> dict[str, Any]:
  """Returns how far the sides are apart; ends the race if they are.

  Without `sides` these are made, of few images in float32.
  """
  if sides is not None:
    batch = train_step.random_batches(options)[0]
    return race_agreement.check(row, *sides, batch)
  small = argparse.Namespace(
    **vars(options)
    | dict(dtype='float32', batch=min(options.batch, 8), compile=[])
  )
  batch = train_step.random_batches(small)[0]
  with race_agreement.exactly():
    return race_agreement.check(
      row, ours(small, row), theirs(small, row), batch
    )


def time_row(options: argparse.Namespace, row: str) -> dict[str, Any]:
  """Returns what is measured of one row."""
  if row not in STEPS:
    return time_calls(options, race_rows.ROWS[row](options))
  mine, others = ours(options, row), theirs(options, row)
  # Those that are timed take the check's step if they compute in float32.
  same = jax.default_backend() == 'cpu' and options.dtype == 'float32'
  agreement = check(options, row, (mine, others) if same else None)
  work = race_work.of_step(
    mine.recipe.model, options.size, race_sides.task(options, **STEPS[row])
  ).times(options.batch)
  result = time_calls(options, others | {'ours': mine})
  if same:
    names = result['seconds']
    result['first_call'] = {k: agreement[k]['seconds'] for k in names}
  return result | {'agreement': agreement, 'work': dataclasses.asdict(work)}


def time_calls(
  options: argparse.Namespace, contestants: dict[str, Any]
) -> dict[str, Any]:
  """Returns seconds per call, ratios to ours, first calls, recompilations."""
  compiled = Compilations()
  first = {k: seconds_of(call) for k, call in contestants.items()}
  for call in contestants.values():
    Block(call, options.warm)()
  compiled.reset()
  blocks = {k: Block(call, options.steps) for k, call in contestants.items()}
  clock = CLOCKS[options.clock]
  seconds = timing.interleaved(blocks, options.blocks, clock)
  return {
    'recompiles': compiled.count(),
    'first_call': first,
    'seconds': {
      name: [value / options.steps for value in values]
      for name, values in seconds.items()
    },
    'ratio': {
      name: timing.ratio(values, seconds['ours'])
      for name, values in seconds.items()
    },
  }


def seconds_of(call: Any) -> float:
  """Returns how long one call takes."""
  start = time.perf_counter()
  Block(call, 1)()
  return time.perf_counter() - start


class Compilations:
  """Counts what either library compiles."""

  def __init__(self):
    self._ours = perf.Compilations()
    self._ours.count(True)
    self._before = 0

  def reset(self) -> None:
    """Begins to count."""
    self._before = self._number()

  def count(self) -> int:
    """Returns the programs compiled since."""
    return self._number() - self._before

  def _number(self) -> int:
    counters: Any = torch._dynamo.utils.counters
    return self._ours.number + counters['stats']['unique_graphs']


def print_row(
  options: argparse.Namespace, row: str, found: dict[str, Any], best: Any
) -> None:
  """Prints one line for each contestant."""
  width = {'float32': 4, 'bfloat16': 2}[options.dtype]
  for name, seconds in found['seconds'].items():
    middle = statistics.median(seconds)
    line = f'{row:18} {name:20} {middle * 1e3:9.1f} ms'
    line += f' ({min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f})'
    line += f'  {found["ratio"][name]:5.2f} x ours'
    line += f'  first {found["first_call"][name]:.1f} s'
    if 'work' in found:
      rate = found['work']['flops'] / middle
      traffic = found['work']['values'] * width / middle
      line += f'  {rate / 1e12:.3g} TFLOP/s ({rate / best["flops"]:.0%})'
      line += f', {traffic / 1e9:.3g} GB/s ({traffic / best["bytes"]:.0%})'
    else:
      line += f'  {options.batch / middle:.0f} images/s'
    print(line)
  print(f'{row:18} compiled after warm-up: {found["recompiles"]}', flush=True)


def peak(options: argparse.Namespace, row: str, name: str) -> float:
  """Returns the MiB that one contestant needs at most, its weights included.

  To be called in a process that does nothing else.
  """
  options.opponents = ['none'] if name == 'ours' else [name.split()[0]]
  rest = memory.resident()
  if row in STEPS:
    call = theirs(options, row)[name] if name != 'ours' else ours(options, row)
  else:
    call = race_rows.ROWS[row](options)[name]
  Block(call, 2)()
  if torch.cuda.is_available():
    most = torch.cuda.max_memory_allocated()
    if name == 'ours':
      most = jax.devices()[0].memory_stats()['peak_bytes_in_use']
    return most / 2**20
  memory.forget_peak()
  Block(call, 2)()
  return memory.resident_peak() - rest


def memory_rows(options: argparse.Namespace) -> dict[str, dict[str, float]]:
  """Returns peaks by row and contestant, each of a process of its own."""
  found: dict[str, dict[str, float]] = {}
  plain = [a for a in sys.argv[1:] if not a.startswith('--json')]
  for row in options.rows:
    names = [*race_sides.styles(options), 'ours']
    if row == 'label step':
      names = ['ours']
    found[row] = {}
    for name in names:
      command = [sys.executable, '-m', 'benchmarks.race', *plain]
      done = subprocess.run(
        [*command, '--peak_of', row, name], check=True, stdout=subprocess.PIPE
      )
      found[row][name] = float(done.stdout.split()[-1])
      print(f'{row:18} {name:20} {found[row][name]:9.0f} MiB', flush=True)
  return found


def arguments() -> argparse.Namespace:
  """Returns the options of the command line."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  every = [*STEPS, *race_rows.ROWS]
  parser.add_argument('--rows', nargs='+', choices=every, default=every)
  parser.add_argument(
    '--opponents', nargs='+', choices=('R0', 'R1', 'R2'), default=[]
  )
  parser.add_argument(
    '--compile', nargs='*', default=['default'], help='modes for R2; best wins'
  )
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--size', type=int, default=224)
  parser.add_argument('--depth', type=int, default=50)
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument(
    '--dtype', default='float32', choices=('float32', 'bfloat16')
  )
  parser.add_argument('--warm', type=int, default=1, help='steps before')
  parser.add_argument('--steps', type=int, default=1, help='in a block')
  parser.add_argument('--blocks', type=int, default=5)
  parser.add_argument(
    '--clock', choices=CLOCKS, default='wall', help='cpu on a busy machine'
  )
  parser.add_argument('--json', type=pathlib.Path, help='file for the numbers')
  parser.add_argument(
    '--memory', action='store_true', help='peaks instead of times'
  )
  parser.add_argument('--peak_of', nargs=2, help=argparse.SUPPRESS)
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  if options.quick:
    # Smaller, and BatchNorm over a few numbers would blow up all rounding.
    options.batch, options.size, options.depth = 4, 64, 10
    options.width, options.blocks, options.compile = 8, 1, []
    if options.rows == every:
      options.rows = ['clean', 'parts loss', 'evaluation']
  return options


def main() -> None:
  """Prints one line per row and contestant."""
  # Both libraries share a GPU.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  options = arguments()
  if options.peak_of:
    print(peak(options, *options.peak_of))
    return
  print(
    f'{jax.devices()[0].device_kind}, {race_sides.device()}, {os.cpu_count()}'
    f' cores; ResNet-{options.depth} width {options.width}, {options.size} px,'
    f' batch {options.batch}, {options.dtype}; jax {jax.__version__}, torch'
    f' {torch.__version__}; {options.clock} seconds'
  )
  found: dict[str, Any] = {
    'options': {k: str(v) for k, v in vars(options).items()}
  }
  if options.memory:
    found['memory'] = memory_rows(options)
  else:
    found |= times(options)
  if options.json:
    files.write_json(options.json, found)


def times(options: argparse.Namespace) -> dict[str, Any]:
  """Returns what is measured of all rows, and the ceilings."""
  best = race_work.ceilings(options)
  print(
    f'ceilings: {best["flops"] / 1e12:.3g} TFLOP/s of a product,'
    f' {best["bytes"] / 1e9:.3g} GB/s of a copy'
  )
  rows: dict[str, Any] = {}
  for row in options.rows:
    rows[row] = time_row(options, row)
    print_row(options, row, rows[row], best)
    if torch.cuda.is_available():
      torch.cuda.empty_cache()
  for robust, clean in (('AT', 'clean'), ('MPM AT', 'MPM clean')):
    if robust in rows and clean in rows:
      self_check(rows, robust, clean)
  return {'ceilings': best, 'rows': rows}


def self_check(rows: dict[str, Any], robust: str, clean: str) -> None:
  """Prints by how much an attack makes our step longer, and ought to."""
  seconds = [rows[r]['seconds']['ours'] for r in (robust, clean)]
  flops = [rows[r]['work']['flops'] for r in (robust, clean)]
  measured = statistics.median(seconds[0]) / statistics.median(seconds[1])
  print(
    f'{robust} / {clean}: {measured:.2f}, by FLOPs {flops[0] / flops[1]:.2f}'
  )


if __name__ == '__main__':
  main()
