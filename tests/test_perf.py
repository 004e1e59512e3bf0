"""What a run tells about its speed."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.errors import UserError
from pinpp_jax.machine import perf


class Clock:
  def __init__(self, monkeypatch):
    self.now = 0.0
    monkeypatch.setattr(perf.time, 'perf_counter', lambda: self.now)


def test_speed_quantiles_and_waiting(monkeypatch, tmp_path):
  clock = Clock(monkeypatch)

  def batches():
    while True:
      clock.now += 1
      yield 0

  endless = batches()
  with perf.Meter(8, (), tmp_path) as meter:
    for i in range(1, 11):
      with meter.step(i):
        meter.wait(endless)
        clock.now += 3
      clock.now += 100  # Scores: no part of a step.
    values = meter.read()
    assert values['perf/images_per_second'] == 8 / 4
    assert values['perf/data_wait'] == 1 / 4
    assert {values[f'perf/step_seconds_p{q}'] for q in (50, 90, 99)} == {4}
    # The next reading is of the steps after it.
    with meter.step(11):
      clock.now += 2
    values = meter.read()
    assert values['perf/step_seconds_p50'] == 2
    assert values['perf/data_wait'] == 0
  assert not list(tmp_path.iterdir())


def test_compilations_are_counted_while_the_loop_runs(tmp_path):
  double = jax.jit(lambda x: 2 * x)
  with perf.Meter(1, (), tmp_path) as meter:
    before = meter.read()['perf/compilations']
    for length in (3, 4, 3, 4):
      double(np.ones(length)).block_until_ready()
    values = meter.read()
    assert values['perf/compilations'] == before + 2
    assert values['perf/compile_seconds'] > 0
  double(np.ones(5)).block_until_ready()
  assert meter.read()['perf/compilations'] == before + 2


def test_memory_of_the_fullest_device(monkeypatch, tmp_path):
  class Device:
    def __init__(self, used):
      self.used = used

    def memory_stats(self):
      return self.used and {'peak_bytes_in_use': self.used}

  devices = [Device(None), Device(3 << 30), Device(2 << 30)]
  monkeypatch.setattr(jax, 'local_devices', lambda: devices)
  meter = perf.Meter(1, (), tmp_path)
  assert meter.read()['perf/device_memory_gib'] == 3
  devices[:] = [Device(None)]
  assert 'perf/device_memory_gib' not in meter.read()


def steps_of(folder):
  """Returns the numbers of the steps in a profile."""
  (file,) = folder.rglob('*.xplane.pb')
  profile = jax.profiler.ProfileData.from_file(str(file))
  return {
    dict(event.stats).get('step_num')
    for plane in profile.planes
    for line in plane.lines
    for event in line.events
    if event.name.startswith('train')
  }


def test_a_profile_holds_the_chosen_steps(tmp_path):
  with perf.Meter(1, (3, 4), tmp_path / 'profile') as meter:
    for i in range(1, 7):
      with meter.step(i):
        jnp.ones(3).sum().block_until_ready()
  assert steps_of(tmp_path / 'profile') == {3, 4}


def test_a_run_that_ends_inside_its_profile_keeps_it(tmp_path):
  with perf.Meter(1, (2, 9), tmp_path / 'profile') as meter:
    for i in itertools.islice(itertools.count(1), 4):
      with meter.step(i):
        jnp.ones(3).sum().block_until_ready()
  assert steps_of(tmp_path / 'profile') == {2, 3, 4}


@pytest.mark.parametrize('profile', [(3,), (0, 2), (4, 3), (1, 2, 3)])
def test_steps_that_are_no_range(profile, tmp_path):
  with pytest.raises(UserError, match='must be the first and the last step'):
    perf.Meter(1, profile, tmp_path)
