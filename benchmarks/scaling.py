"""The training step on 1 to 8 devices, and a model of it on many.

  python -m benchmarks.scaling
  python -m benchmarks.scaling --batch=64 --size=224 --depth=50 --width=64
  python -m benchmarks.scaling --quick

First, measured: MPM's adversarial step (PGD-2) on 1, 2, 4 and 8 CPU devices,
with the same number of images on each. The share of communication is the time
of the step's all-reduces alone divided by the time of the step. The devices
share the cores of one machine, so the step does not get faster: the table shows
what it sends, and that this does not grow with the number of devices.

Then, marked as a model: the published recipe on machines on which nothing was
measured, with operations counted by XLA and bytes from the gradients.
"""

import argparse
from collections.abc import Callable, Iterator
import dataclasses
import functools
import itertools
import math
import re
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np

from benchmarks import timing, train_step
from benchmarks.steps import Steps
from pinpp_jax import sharding, state, step

_SUM = re.compile(r' = (.*?) all-reduce(?:-start)?\(')
_ARRAY = re.compile(r'\b([a-z]+)(\d+)\[([\d,]*)\]')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
  """Devices that train together, with data from their makers' documents.

  Attributes:
    devices: Number of them.
    operations: Peak bfloat16 operations per second of each.
    bandwidth: Bytes per second that each can send.
    source: Document of these numbers.
  """

  devices: int
  operations: float
  bandwidth: float
  source: str


MACHINES = {
  'H200 x 8': Machine(
    devices=8,
    operations=989e12,
    bandwidth=450e9,
    source='nvidia.com/h200: 989 TFLOPS without sparsity, NVLink 900 GB/s in'
    ' both directions together',
  ),
  'TPU v5e-256': Machine(
    devices=256,
    operations=197e12,
    bandwidth=200e9,
    source='cloud.google.com/tpu/docs/v5e: 197 TFLOPs, 400 GBps in both'
    ' directions together',
  ),
}


def mesh_of(devices: int) -> jax.sharding.Mesh:
  """Returns a mesh of the first devices."""
  axes, types = ('data', 'fsdp'), (AxisType.Auto, AxisType.Auto)
  chosen = jax.devices()[:devices]
  return jax.make_mesh((devices, 1), axes, types, devices=chosen)


def steps(options: argparse.Namespace, devices: int) -> Steps:
  """Returns steps over `devices` devices, `options.batch` images on each."""
  mesh = mesh_of(devices)
  share = argparse.Namespace(**vars(options))
  share.batch = options.batch * devices
  rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
  made = jax.device_put(train_step.random_batches(share), rows)
  batches: Iterator[Any] = itertools.cycle(made)
  recipe = train_step.recipe(share, parts=True, robust=True)
  return Steps(recipe, batches, share.size, mesh=mesh)


def sums(compiled: jax.stages.Compiled) -> list[int]:
  """Returns the bytes of every array that a program sums over devices."""
  found = []
  for results in _SUM.findall(compiled.as_text() or ''):
    for _, bits, shape in _ARRAY.findall(results):
      sizes = map(int, filter(None, shape.split(',')))
      found.append(int(bits) // 8 * math.prod(sizes))
  return found


def sum_alone(sizes: list[int], devices: int) -> Callable[[], Any]:
  """Returns a function that sums arrays of so many bytes over devices."""
  mesh = mesh_of(devices)
  rows = NamedSharding(mesh, PartitionSpec('data'))
  arrays = [
    jax.device_put(np.ones((devices, max(1, n // 4)), np.float32), rows)
    for n in sizes
  ]

  @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
  def added(arrays):
    return [x.sum(0) for x in arrays]

  return lambda: added(arrays)


def measure(options: argparse.Namespace) -> None:
  """Prints a row for every number of devices."""
  rows = {str(n): steps(options, n) for n in options.devices}
  sizes = {name: sums(row.compiled()) for name, row in rows.items()}
  calls: dict[str, Callable[[], Any]] = dict(rows)
  for name in rows:
    calls[f'{name} sums'] = sum_alone(sizes[name], int(name))
  seconds = timing.interleaved(calls, options.rounds)
  print('devices    images/s   sums    MiB   communication')
  for name in rows:
    count = int(name)
    shares = timing.ratio(seconds[f'{name} sums'], seconds[name])
    rate = options.batch * count / float(np.median(seconds[name]))
    megabytes = sum(sizes[name]) / 2**20
    print(
      f'{count:7} {rate:11.2f} {len(sizes[name]):6} {megabytes:6.1f}'
      f' {100 * shares if count > 1 else 0:12.1f} %'
    )


def published(batch: int) -> tuple[float, int]:
  """Returns a step's operations per image, and the bytes of its gradients.

  Of the full recipe, MPM with ResNet-50 at 224 pixels under PGD-2.
  """
  options = argparse.Namespace(
    batch=batch, size=224, depth=50, width=64, dtype='bfloat16'
  )
  recipe = train_step.recipe(options, parts=True, robust=True)
  variables = jax.eval_shape(
    functools.partial(state.initial_variables, recipe.model, options.size),
    state.key(0),
  )
  given = jax.eval_shape(
    functools.partial(state.create, tx=recipe.tx), variables
  )
  example = jax.eval_shape(lambda x: x, next(train_step.batches(options)))
  lowered = step.train_step.lower(
    given, example, jax.random.key(0), recipe=recipe
  )
  counted: Any = lowered.cost_analysis()
  gradients = sum(
    x.size * x.dtype.itemsize for x in jax.tree.leaves(variables['params'])
  )
  return counted['flops'] / batch, gradients


def efficiency(
  machine: Machine, compute: float, gradients: int
) -> tuple[float, float]:
  """Returns the share of time spent computing: worst, best.

  A ring all-reduce sends 2 (n - 1) / n of the gradients' bytes through every
  device: after the backward pass (worst), or during it (best).
  """
  n = machine.devices
  sent = 2 * (n - 1) / n * gradients / machine.bandwidth
  return compute / (compute + sent), compute / max(compute, sent)


def model(options: argparse.Namespace) -> None:
  """Prints the model of the full recipe; none of it was measured."""
  per_image, gradients = published(2)
  print(
    f'\nA MODEL, not measured: MPM, ResNet-50, 224 px, PGD-2, bfloat16;'
    f' {per_image / 1e9:.1f} GFLOP an image, {gradients / 2**20:.0f} MiB of'
    ' gradients (float32).\nAssumed:'
    f' {100 * options.utilisation:.0f} % of the peak, no latency, and the'
    " makers' data:"
  )
  for name, machine in MACHINES.items():
    print(f'  {name}: {machine.source}')
  print('machine        images/device   compute    images/s   efficiency')
  for name, machine in MACHINES.items():
    for images in (2, 16, 64):
      peak = machine.operations * options.utilisation
      compute = images * per_image / peak
      low, high = efficiency(machine, compute, gradients)
      rate = images * machine.devices * low / compute
      print(
        f'{name:14} {images:13} {compute * 1e3:7.2f} ms {rate:11.0f}'
        f'   {100 * low:.1f} % to {100 * high:.1f} %'
      )


def main() -> None:
  """Prints two tables."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--batch', type=int, default=4, help='on each device')
  parser.add_argument('--size', type=int, default=64)
  parser.add_argument('--depth', type=int, default=18)
  parser.add_argument('--width', type=int, default=16)
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--devices', type=int, nargs='+', default=[1, 2, 4, 8])
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--utilisation', type=float, default=0.3)
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  if options.quick:
    options.batch, options.size, options.depth = 1, 32, 10
    options.width, options.rounds, options.devices = 8, 1, [1, 2]
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', max(options.devices))
  measure(options)
  model(options)


if __name__ == '__main__':
  main()
