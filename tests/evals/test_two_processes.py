"""Scores over two processes equal those of one."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent

PROCESSES = 2

# What each process runs: every other row of every global batch of eight.
PROGRAM = """
import json, sys
import jax
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 1)
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
sys.path[:0] = [sys.argv[4], sys.argv[5]]
import conftest
from pinpp_jax import attacks

attacks.ATTACKS['noise'] = conftest.Noise
mesh = jax.make_mesh(
  (jax.device_count(),), ('data',), (jax.sharding.AxisType.Auto,))
spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))

def put(batch):
  return {k: jax.make_array_from_process_local_data(spec, v)
          for k, v in batch.items()}

scores = conftest.tiny_scores(put, jax.process_index(), jax.process_count())
print('SCORES', json.dumps(scores))
"""


def run():
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  root = str(HERE.parent.parent)
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  started = [
    subprocess.Popen(
      [sys.executable, '-c', PROGRAM, address, str(PROCESSES), str(i)]
      + [root, str(HERE)],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      env=environment,
    )
    for i in range(PROCESSES)
  ]
  try:
    outputs = [process.communicate(timeout=120)[0] for process in started]
  finally:
    for process in started:
      process.kill()
  lines = [
    [line for line in output.splitlines() if line.startswith('SCORES ')]
    for output in outputs
  ]
  assert all(lines), '\n'.join(outputs)
  return [json.loads(line[0].removeprefix('SCORES ')) for line in lines]


def test_two_processes_agree_with_one(tiny, noise):
  first, second = run()
  assert first == second
  one = tiny.scores(tiny.put)
  assert one['examples'] == 21 and one['image 4'] > 0
  assert first == pytest.approx(one, rel=1e-6)
