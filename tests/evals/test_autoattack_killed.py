"""A real process is killed again and again; nothing it found is lost."""

import json
import pathlib
import random
import subprocess
import sys
import time

import numpy as np
import pytest

PROGRAM = pathlib.Path(__file__).with_name('attacked.py')
KILLS = 20


def start(folder):
  return subprocess.Popen(
    [sys.executable, PROGRAM, folder],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    cwd=PROGRAM.parents[2],
  )


def finish(folder):
  process = start(folder)
  _, errors = process.communicate(timeout=600)
  assert process.returncode == 0, errors.decode()
  result = json.loads((folder / 'result.json').read_text())
  return result['flags'], np.load(folder / 'adversarial.npy')


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path):
  flags, found = finish(tmp_path / 'whole')
  assert {'0', '1'} == set(flags['robust'])

  rng = random.Random(0)
  killed = tmp_path / 'killed'
  state = killed / 'state.npz'
  look = lambda: state.read_bytes() if state.exists() else b''
  states = {look()}
  for number in range(KILLS):
    (killed / 'ready').unlink(missing_ok=True)
    before = look()
    process = start(killed)
    while not (killed / 'ready').exists():
      assert process.poll() is None, process.stderr.read().decode()
      time.sleep(0.01)
    # Every other one while it starts; the rest among the chunks.
    while number % 2 and look() == before and process.poll() is None:
      time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.05 if number % 2 else 0.5))
    process.kill()
    process.wait()
    process.stderr.close()
    states.add(look())
  assert len(states) > KILLS / 4
  assert not (killed / 'result.json').exists()
  flags_after, found_after = finish(killed)
  assert flags_after == flags
  np.testing.assert_array_equal(found_after, found)
