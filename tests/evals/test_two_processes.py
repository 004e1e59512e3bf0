"""Scores over two processes equal those of one."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent

# What each process runs: its rows of every global batch of eight.
PROGRAM = """
import json, sys
import jax
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_cpu_collectives_implementation', 'gloo')
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
sys.path[:0] = [sys.argv[4], sys.argv[5]]
import conftest, numpy as np
from pinpp_jax import attacks, evals, metrics
from pinpp_jax.evals import samples

count, index = jax.process_count(), jax.process_index()
attacks.ATTACKS['noise'] = conftest.Noise
table = conftest.tiny_table()
split = conftest.tiny_split(table)
model = conftest.Tiny()
variables = model.init(
  jax.random.key(1), np.zeros((1, 32, 32, 3), np.float32), parts=True)
variables = jax.device_get(variables)
mesh = jax.make_mesh(
  (jax.device_count(),), ('data',), (jax.sharding.AxisType.Auto,))
spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))

def batches():
  for batch in conftest.batches_of(split, 8):
    yield {k: v[index::count] for k, v in batch.items()}

def put(batch):
  return {k: jax.make_array_from_process_local_data(spec, v)
          for k, v in batch.items()}

fields = dict(model=model, batches=batches, put=put, labels=table)
key = jax.random.key(0)
noise = {'name': 'noise', 'eps': 0.2}
scores = evals.EVALS['accuracy'](attack=noise, examples=21, **fields)(
  variables, key)
scores |= evals.EVALS['segmentation'](bootstrap=5, limit=13, **fields)(
  variables, key)
found = samples.samples(variables, key, number=5, **fields)
scores['samples'] = sorted(float(s.image.sum()) for s in found)
print('SCORES', json.dumps(scores))
"""


def run(processes):
  with socket.socket() as free:
    free.bind(('localhost', 0))
    address = f'localhost:{free.getsockname()[1]}'
  root = str(HERE.parent.parent)
  environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  started = [
    subprocess.Popen(
      [sys.executable, '-c', PROGRAM, address, str(processes), str(i)]
      + [root, str(HERE)],
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      env=environment,
    )
    for i in range(processes)
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


def test_two_processes_agree_with_one():
  (one,) = run(1)
  first, second = run(2)
  assert first == second
  images = one.pop('samples')
  assert first.pop('samples') == images and len(images) == 5
  assert first == pytest.approx(one, rel=1e-6)
