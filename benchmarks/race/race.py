"""The race: our training step against PyTorch's, side by side.

  pip install -e '.[torch]'
  python -m benchmarks.race                                           (CPU)
  python -m benchmarks.race --batch=256 --dtype=bfloat16 --blocks=5 --steps=50
  python -m benchmarks.race --rows 'MPM AT' --compile --json=FILE
  OMP_WAIT_POLICY=passive python -m benchmarks.race --clock=cpu
  python -m benchmarks.race --quick

R0 is the PyTorch reference's step as released, with its configuration repaired:
NCHW, float16 on a GPU, dense soft targets, an attack that also computes
gradients of the weights. R1 is R0 with channels last, tuned kernels and no
synchronisation with the device. R2 is the fastest that we can write: bfloat16
on a GPU, gradients of the images alone, sparse targets, torch.compile.

All start from the same weights and get the same random uint8 images, another
batch at every step; optimiser, statistics and averaging are part of a step.
Nothing is timed before all have made the same first step in float32. Each has
its own process, and they take turns, block by block (Linux only). Without
torch.compile (`--compile` with no mode) R2 runs eagerly.
"""

import argparse
from collections.abc import Callable
from concurrent import futures
import dataclasses
import functools
import itertools
import multiprocessing
import os
import pathlib
import statistics
import tempfile
from typing import Any

import jax
import torch

from benchmarks import timing, train_step
from benchmarks.race import agreement as agreement_lib
from benchmarks.race import rows as rows_lib
from benchmarks.race import sides as sides_lib
from benchmarks.race import turns
from benchmarks.race import work as work_lib
from benchmarks.steps import Steps
from benchmarks.torch_rival import steps
from pinpp_jax.data import files
from pinpp_jax.machine import host_memory

STEPS = {
  'clean': dict(parts=False, robust=False),
  'MPM clean': dict(parts=True, robust=False),
  'AT': dict(parts=False, robust=True),
  'MPM AT': dict(parts=True, robust=True),
}


def our_step(options: argparse.Namespace, parts: bool, robust: bool) -> Steps:
  """Returns our training step before its first call."""
  task = sides_lib.task(options, parts=parts, robust=robust)
  recipe = sides_lib.recipe(options, task)
  batches = itertools.cycle(jax.device_put(train_step.random_batches(options)))
  values = sides_lib.variables(recipe.model)
  return Steps(recipe, batches, options.size, values)


def their_step(
  options: argparse.Namespace,
  style: steps.Style,
  parts: bool,
  robust: bool,
) -> sides_lib.Opponent:
  """Returns one of PyTorch's training steps, from the same weights."""
  task = sides_lib.task(options, parts=parts, robust=robust)
  model = sides_lib.recipe(options, task).model
  values = sides_lib.variables(model)
  batches = train_step.random_batches(options)
  return sides_lib.Opponent(
    sides_lib.opponent(options, model, values, style, task),
    [sides_lib.on_torch(batch) for batch in batches],
  )


ROWS = rows_lib.ROWS | {
  name: rows_lib.Row(
    ours=functools.partial(our_step, **task),
    theirs=functools.partial(their_step, **task),
  )
  for name, task in STEPS.items()
}


def contestant(options: argparse.Namespace, row: str, name: str) -> Any:
  """Returns the function that is called and timed."""
  return ROWS[row].makers(options)[name]()


def prepare(name: str) -> Callable[[], None]:
  """Returns a contestant's preparation: for ours that of `main`."""
  return host_memory.keep if name == 'ours' else turns.nothing


def agreement(options: argparse.Namespace, row: str) -> dict[str, Any]:
  """Returns the differences of the sides; exits if they are too large."""
  if row not in STEPS:
    return ROWS[row].check(options, row)
  if not exact(options):
    options.dtype, options.compile = 'float32', []
    options.batch = min(options.batch, 8)
  batch = train_step.random_batches(options)[0]
  with agreement_lib.exactly():
    sides = {name: make() for name, make in ROWS[row].makers(options).items()}
    return agreement_lib.check(row, sides.pop('ours'), sides, batch)


def exact(options: argparse.Namespace) -> bool:
  """Whether the timed steps themselves can be compared."""
  return jax.default_backend() == 'cpu' and options.dtype == 'float32'


def time_row(options: argparse.Namespace, row: str) -> dict[str, Any]:
  """Returns the measurements of one row."""
  spawn = multiprocessing.get_context('spawn')
  with futures.ProcessPoolExecutor(1, mp_context=spawn) as process:
    apart = process.submit(agreement, options, row).result()
  names = list(ROWS[row].makers(options))
  found = {'agreement': apart} | time_calls(options, row, names)
  if row in STEPS:
    if exact(options):
      # The timed steps reuse what torch.compile has cached here.
      found['first_call'] = {name: apart[name]['seconds'] for name in names}
    task = sides_lib.task(options, **STEPS[row])
    model = sides_lib.recipe(options, task).model
    work = work_lib.of_step(model, options.size, task).times(options.batch)
    found['work'] = dataclasses.asdict(work)
  return found


def time_calls(
  options: argparse.Namespace, row: str, names: list[str]
) -> dict[str, Any]:
  """Returns seconds per call, ratios to ours, first calls, compiled, MiB."""
  rules = turns.Rules(
    warm=options.warm, steps=options.steps, clock=options.clock
  )
  all_of_them = {
    name: turns.Contestant(
      contestant, (options, row, name), rules, prepare(name)
    )
    for name in names
  }
  seconds: dict[str, list[float]] = {name: [] for name in names}
  for _ in range(options.blocks):
    for name, one in all_of_them.items():
      seconds[name].append(one.block())
  ends = {name: one.end() for name, one in all_of_them.items()}
  return {
    'recompiles': sum(end['compiled'] for end in ends.values()),
    'mebibytes': {name: end['mebibytes'] for name, end in ends.items()},
    'pages': {name: end['pages'] for name, end in ends.items()},
    'first_call': {name: one.first for name, one in all_of_them.items()},
    'seconds': seconds,
    'ratio': {
      name: timing.ratio(values, seconds['ours'])
      for name, values in seconds.items()
    },
  }


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
    line += f'  {found["mebibytes"][name]:.0f} MiB'
    if 'work' in found:
      rate = found['work']['flops'] / middle
      traffic = found['work']['values'] * width / middle
      share = 100 * rate / best['flops'], 100 * traffic / best['bytes']
      line += f'  {rate / 1e12:.3g} TFLOP/s ({share[0]:.0f} %)'
      line += f', {traffic / 1e9:.3g} GB/s ({share[1]:.0f} %)'
    else:
      line += f'  {options.batch / middle:.0f} images/s'
    print(line)
  print(f'{row:18} compiled after warm-up: {found["recompiles"]}', flush=True)


def arguments() -> argparse.Namespace:
  """Returns the options of the command line."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  every = [*STEPS, *rows_lib.ROWS]
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
    '--clock',
    choices=timing.CLOCKS,
    default='wall',
    help='cpu on a busy machine',
  )
  parser.add_argument('--json', type=pathlib.Path, help='file for the numbers')
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  if options.quick:
    # Not smaller: BatchNorm over few numbers would amplify rounding.
    options.batch, options.size, options.depth = 4, 64, 10
    options.width, options.blocks, options.compile = 8, 1, []
    if options.rows == every:
      options.rows = ['clean', 'parts loss']
  return options


def main() -> None:
  """Prints one line per row and contestant."""
  # The contestants share a GPU.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  options = arguments()
  print(
    f'{jax.devices()[0].device_kind}, {sides_lib.device()}, {os.cpu_count()}'
    f' cores; ResNet-{options.depth} width {options.width}, {options.size} px,'
    f' batch {options.batch}, {options.dtype}; jax {jax.__version__}, torch'
    f' {torch.__version__}; {options.clock} seconds'
  )
  with tempfile.TemporaryDirectory() as folder:
    os.environ['TORCHINDUCTOR_CACHE_DIR'] = folder
    found = times(options)
  found['options'] = {k: str(v) for k, v in vars(options).items()}
  if options.json:
    files.write_json(options.json, found)


def times(options: argparse.Namespace) -> dict[str, Any]:
  """Returns the measurements of all rows, and the machine's best rates."""
  best = work_lib.ceilings(options)
  print(
    f'ceilings: {best["flops"] / 1e12:.3g} TFLOP/s of a product,'
    f' {best["bytes"] / 1e9:.3g} GB/s of a copy'
  )
  rows: dict[str, Any] = {}
  for row in options.rows:
    rows[row] = time_row(options, row)
    print_row(options, row, rows[row], best)
  for robust, clean in (('AT', 'clean'), ('MPM AT', 'MPM clean')):
    if robust in rows and clean in rows:
      self_check(rows, robust, clean)
  return {'ceilings': best, 'rows': rows}


def self_check(rows: dict[str, Any], robust: str, clean: str) -> None:
  """Prints how much longer the attack makes our step, measured and by FLOPs."""
  seconds = [rows[r]['seconds']['ours'] for r in (robust, clean)]
  flops = [rows[r]['work']['flops'] for r in (robust, clean)]
  measured = statistics.median(seconds[0]) / statistics.median(seconds[1])
  print(
    f'{robust} / {clean}: {measured:.2f}, by FLOPs {flops[0] / flops[1]:.2f}'
  )
