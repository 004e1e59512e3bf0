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
  whole = tmp_path / 'whole'
  begin = time.monotonic()
  flags, found = finish(whole)
  assert {'0', '1'} == set(flags['robust'])
  begin = (whole / 'ready').stat().st_mtime
  length = (whole / 'result.json').stat().st_mtime - begin

  rng = random.Random(0)
  killed = tmp_path / 'killed'
  states = set()
  for _ in range(KILLS):
    (killed / 'ready').unlink(missing_ok=True)
    process = start(killed)
    while not (killed / 'ready').exists():
      assert process.poll() is None, process.stderr.read().decode()
      time.sleep(0.01)
    # Wherever a run may be, from its first file to a tenth of its way.
    time.sleep(rng.uniform(0, length / 10))
    process.kill()
    process.wait()
    process.stderr.close()
    state = killed / 'state.npz'
    states.add(state.read_bytes() if state.exists() else b'')
  assert len(states) > KILLS / 4
  flags_after, found_after = finish(killed)
  assert flags_after == flags
  np.testing.assert_array_equal(found_after, found)
