"""Runs as processes of their own, to be killed and given faults.

A server that has imported everything forks them, so that they start fast.
"""

import contextlib
import multiprocessing
import os
import pathlib
import re
import shutil
import socket
import sys
import time
from unittest import mock

import jax
import numpy as np

from pinpp_jax import checkpoint, metrics, sharding

ROOT = pathlib.Path(__file__).resolve().parent.parent
_FORKS = multiprocessing.get_context('forkserver')
_FORKS.set_forkserver_preload(['runs', 'pinpp_jax.main'])


def flags(workdir, data_dir):
  """Returns the flags of a tiny run: 8 steps an epoch, 16 steps, all logged."""
  return [
    f'--config={ROOT}/configs/resnet.py:smoke',
    f'--workdir={workdir}',
    f'--config.data.data_dir={data_dir}',
    '--config.data.batch_size=48',
    '--config.optim.epochs=2.0',
    '--config.eval_epochs=0.75',
    '--config.checkpoint_steps=4',
    '--config.log_steps=1',
    '--config.report_samples=2',
  ]


class Run:
  """A tiny run of the plain recipe, in a process of its own.

  Args:
    workdir: Its folder; what it prints goes to a file beside it.
    data_dir: Folder of the embedded data set.
    *more: Further flags.
    devices: CPU devices.
    fault: Function called in the process before `main`.
    environment: Further environment variables.
  """

  def __init__(
    self, workdir, data_dir, *more, devices=1, fault=None, environment=()
  ):
    self.workdir = workdir
    number = len(list(workdir.parent.glob(f'{workdir.name}.*.out')))
    self._out = workdir.with_name(f'{workdir.name}.{number}.out')
    self._out.touch()
    self._process = _FORKS.Process(
      target=_main,
      args=(
        ['main', *flags(workdir, data_dir), *more],
        self._out,
        devices,
        fault,
        dict(environment),
      ),
    )
    self._process.start()

  @property
  def pid(self):
    return self._process.pid

  @property
  def output(self):
    return self._out.read_text(errors='replace')

  def until(self, seen, seconds=600):
    """Waits until `seen(output)`; false if the run ended before."""
    deadline = time.monotonic() + seconds
    while not seen(self.output):
      assert time.monotonic() < deadline, self.output
      if not self._process.is_alive():
        return bool(seen(self.output))
      time.sleep(0.005)
    return True

  def until_step(self, step):
    """Waits for a step's line."""
    line = re.compile(rf'step {step}/')
    assert self.until(line.search), self.output

  def kill(self):
    """Kills it as `kill -9` does."""
    self._process.kill()
    self._process.join()

  def wait(self, seconds=600):
    """Returns (exit status, output) when it has ended."""
    self._process.join(seconds)
    if self._process.is_alive():
      self.kill()
      raise AssertionError(f'it did not end:\n{self.output}')
    return self._process.exitcode, self.output

  def finish(self):
    """Waits for its good end; returns the output."""
    status, output = self.wait()
    assert status == 0, output
    return output


def command(arguments, out, devices=1):
  """Returns (exit status, output) of `main` with a command line's arguments.

  Args:
    arguments: What follows the name of the program.
    out: File for what it prints.
    devices: CPU devices.
  """
  out.touch()
  process = _FORKS.Process(
    target=_main, args=(['main', *arguments], out, devices, None, {})
  )
  process.start()
  process.join(300)
  assert not process.is_alive()
  return process.exitcode, out.read_text()


def _main(arguments, out, devices, fault, environment):
  file = os.open(out, os.O_WRONLY | os.O_APPEND)
  os.dup2(file, 1)
  os.dup2(file, 2)
  os.environ.update(environment)
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', devices)
  from absl import app

  from pinpp_jax import main

  if fault is not None:
    fault()
  # Where ml_collections looks for what a recipe's fields are set to.
  sys.argv[:] = arguments
  app.run(main.main, flags_parser=main.parse_flags)


def pair(workdir, data_dir, *more):
  """Starts two processes of one run, as SLURM would."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  common = {
    'SLURM_JOB_ID': '1',
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_NTASKS': '2',
    'JAX_COORDINATOR_PORT': str(port),
  }
  return [
    Run(
      workdir,
      data_dir,
      '--config.distributed=True',
      *more,
      environment=common
      | {'SLURM_PROCID': str(number), 'SLURM_LOCALID': str(number)},
      fault=_talk_over_gloo,
    )
    for number in range(2)
  ]


def _talk_over_gloo():
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')


@contextlib.contextmanager
def killed_copy(whole, parts, step=6):
  """Lets a run in `whole` leave in `parts` what its death would have left.

  Its death at the first evaluation at or after `step`, before the best weights
  are kept.
  """
  offer = checkpoint.Best.offer

  def copy(self, now, score, variables):
    if now >= step and not parts.exists():
      shutil.copytree(whole, parts)
    offer(self, now, score, variables)

  with mock.patch.object(checkpoint.Best, 'offer', copy):
    yield
  assert not (parts / 'scores.json').exists()


def best(workdir):
  """Returns the best weights of a run."""
  here = sharding.replicated(sharding.mesh())
  return jax.device_get(checkpoint.load_best(workdir, here))


def rows(workdir):
  """Returns the rows of metrics.jsonl without what depends on the hour."""
  return [
    {
      name: value
      for name, value in row.items()
      if name != 'time' and not name.startswith('perf/')
    }
    for row in metrics.read(workdir)
  ]


def assert_same(one, other):
  """Two runs found the same, to the bit."""
  jax.tree.map(np.testing.assert_array_equal, best(one), best(other))
  assert rows(one) == rows(other)
  for name in ('scores.json', 'protocol.json'):
    assert (one / name).read_text() == (other / name).read_text()
