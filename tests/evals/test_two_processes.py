"""Scores over two processes equal those of one."""

import json
import pathlib

import processes
import pytest

# What each process runs: every other row of every global batch of eight.
PROGRAM = """
import json, sys
import jax
jax.distributed.initialize()
sys.path[:0] = sys.argv[1:]
import conftest
from pinpp_jax import attacks, sharding

attacks.ATTACKS['noise'] = conftest.Noise
mesh = sharding.mesh()
put = lambda batch: sharding.put(batch, mesh)
scores = conftest.tiny_scores(put, jax.process_index(), jax.process_count())
print('SCORES', json.dumps(scores))
"""


def run():
  folders = processes.ROOT, pathlib.Path(__file__).parent
  outputs = processes.run('-c', PROGRAM, *folders, count=2)
  lines = [
    line.removeprefix('SCORES ')
    for output in outputs
    for line in output.splitlines()
    if line.startswith('SCORES ')
  ]
  return map(json.loads, lines)


def test_two_processes_agree_with_one(tiny, noise):
  first, second = run()
  assert first == second
  one = tiny.scores(tiny.put)
  assert one['examples'] == 21 and one['image 4'] > 0
  assert first == pytest.approx(one, rel=1e-6)
