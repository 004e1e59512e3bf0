"""AutoAttack by several processes finds what one finds, and can be stopped."""

import json
import time

import attack_together
import numpy as np
import processes
import pytest

PROGRAM = 'tests/cluster/attack_together.py'


def result(folder):
  return json.loads((folder / 'result.json').read_text())


def found(folder):
  return np.load(folder / 'adversarial.npy')


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """What one process finds, with eight devices."""
  folder = tmp_path_factory.mktemp('alone')
  attack_together.attack(folder)
  return folder


def test_two_processes_find_what_one_finds(alone, tmp_path):
  outputs = processes.run(PROGRAM, tmp_path, count=2, devices=1)
  one, two = result(alone), result(tmp_path)
  assert {'0', '1'} == set(one['flags']['robust'])
  assert two['flags'] == one['flags'] and two['identity'] == one['identity']
  for name, record in one['attacks'].items():
    assert two['attacks'][name] | {'seconds': 0} == record | {'seconds': 0}
  assert two['signs'] == one['signs']
  np.testing.assert_allclose(found(tmp_path), found(alone), atol=1e-6)
  told = [(tmp_path / f'told{i}').read_text() for i in range(2)]
  flags = one['flags']['robust']
  assert told == [f'{flags} True', f'{flags} False']
  assert sum('Clean accuracy' in output for output in outputs) == 1


def test_what_a_killed_one_left_is_gone_on_with(alone, tmp_path):
  state = tmp_path / 'state.npz'
  with processes.Group(PROGRAM, tmp_path, count=2, devices=1) as group:
    while not state.exists():
      assert group.processes[0].poll() is None, group.outputs
      time.sleep(0.01)
    group.processes[0].kill()
    assert group.processes[1].wait(600) != 0
  assert not (tmp_path / 'result.json').exists()
  # On another number of processes.
  attack_together.attack(tmp_path)
  assert result(tmp_path)['flags'] == result(alone)['flags']
