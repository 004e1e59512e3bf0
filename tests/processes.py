"""Several processes on this machine that meet through jax.distributed."""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def free_port():
  """Returns a port that nobody listens at."""
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]


def meeting(devices=1, port=None):
  """Returns what every process is told: CPU devices, and where to meet."""
  return {
    'JAX_PLATFORMS': 'cpu',
    'JAX_NUM_CPU_DEVICES': str(devices),
    'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
    'JAX_COORDINATOR_PORT': str(port or free_port()),
    'SLURM_JOB_ID': '4242',
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_STEP_NUM_NODES': '1',
  }


class Group:
  """Processes of one program, which `jax.distributed.initialize()` joins.

  Use it as a context manager; what is still alive at its end is killed.

  Args:
    arguments: Of Python.
    count: Number of processes.
    devices: CPU devices of each.
  """

  def __init__(self, *arguments, count, devices=1):
    self._folder = tempfile.TemporaryDirectory()
    self._logs = [pathlib.Path(self._folder.name, str(i)) for i in range(count)]
    told = os.environ | meeting(devices)
    told |= {'SLURM_NTASKS': str(count), 'PYTHONPATH': str(ROOT)}
    self.processes = []
    for number, path in enumerate(self._logs):
      own = {'SLURM_PROCID': str(number), 'SLURM_LOCALID': str(number)}
      # Not a pipe: one that nobody reads fills up, and its writer waits.
      with path.open('w') as log:
        process = subprocess.Popen(
          [sys.executable, *map(str, arguments)],
          cwd=ROOT,
          env=told | own,
          stdout=log,
          stderr=subprocess.STDOUT,
        )
      self.processes.append(process)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for process in self.processes:
      process.kill()
      process.wait()
    self._folder.cleanup()

  @property
  def outputs(self):
    """What each process has printed."""
    return [log.read_text() for log in self._logs]

  def wait(self, timeout=900):
    """Returns the exit status of each process."""
    return [process.wait(timeout) for process in self.processes]


def run(*arguments, count, devices=1, timeout=900):
  """Returns what each process printed, all of them having ended well."""
  with Group(*arguments, count=count, devices=devices) as group:
    status = group.wait(timeout)
    outputs = group.outputs
  assert status == [0] * count, '\n'.join(outputs)
  return outputs
