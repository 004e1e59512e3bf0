import json
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax import metrics


def test_pairs_are_divided_once():
  total = None
  for right, seen in [(1, 1), (0, 3)]:
    total = metrics.add(total, {'top1': (jnp.float32(right), jnp.int32(seen))})
  assert metrics.means(total) == {'top1': 0.25}


def test_counts_grow_past_float32():
  total = metrics.add(None, {'n': (np.float32(2**24), np.float32(2**24))})
  for _ in range(3):
    total = metrics.add(total, {'n': (np.float32(1), np.float32(1))})
  assert total['n'][1] == 2**24 + 3


def test_mean_of_nothing_is_nan():
  assert math.isnan(metrics.means({'a': (0.0, 0.0)})['a'])
  assert metrics.means(None) == {}


def test_rows_come_back(tmp_path):
  with metrics.Writer(tmp_path, clock=lambda: 12.5) as write:
    write(1, {'loss': jnp.float32(0.5)})
    assert metrics.read(tmp_path) == [{'step': 1, 'time': 12.5, 'loss': 0.5}]
    write(2, {'val/top1': 1})
  assert [row['step'] for row in metrics.read(tmp_path)] == [1, 2]
  assert list(tmp_path.glob('events.out.tfevents.*'))


def test_resuming_drops_later_rows_and_a_torn_line(tmp_path):
  with metrics.Writer(tmp_path) as write:
    for step in range(1, 6):
      write(step, {'loss': step})
  with open(tmp_path / metrics.FILE, 'a') as file:
    file.write('{"step": 3, "lo')
  assert len(metrics.read(tmp_path)) == 5
  with metrics.Writer(tmp_path, 3) as write:
    write(4, {'loss': 40})
  rows = metrics.read(tmp_path)
  assert [(row['step'], row['loss']) for row in rows] == [
    (1, 1), (2, 2), (3, 3), (4, 40),
  ]  # fmt: skip


def test_a_kill_while_resuming_loses_nothing(tmp_path, monkeypatch):
  with metrics.Writer(tmp_path) as write:
    for step in range(1, 6):
      write(step, {'loss': step})
  before = metrics.read(tmp_path)

  def die(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', die)
    with pytest.raises(KeyboardInterrupt):
      metrics.Writer(tmp_path, 3)
  assert metrics.read(tmp_path) == before


def test_non_finite_values_are_null_and_named(tmp_path, caplog):
  with metrics.Writer(tmp_path) as write, caplog.at_level('WARNING'):
    write(7, {'loss': math.nan, 'norm': math.inf, 'lr': 0.1})
  line = (tmp_path / metrics.FILE).read_text()
  row = json.loads(line, parse_constant=pytest.fail)
  assert row['loss'] is None and row['norm'] is None and row['lr'] == 0.1
  assert math.isnan(metrics.read(tmp_path)[0]['loss'])


def test_reserved_names_are_refused(tmp_path):
  with metrics.Writer(tmp_path) as write, pytest.raises(ValueError):
    write(1, {'step': 1})


def test_only_the_first_process_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  with metrics.Writer(tmp_path) as write:
    write(1, {'loss': 1})
  assert not list(tmp_path.iterdir())


def test_no_file_is_no_rows(tmp_path):
  assert metrics.read(tmp_path) == []


class Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def test_progress_line():
  clock = Clock()
  progress = metrics.Progress(1000, 32, clock=clock)
  clock.now += 20
  assert progress(100, 2.5) == (
    'step 100/1,000 (10 %)  loss 2.5000  160.0 images/s  ETA 0:03:00'
  )
  clock.now += 10
  # The mean of 0.2 and 0.1 s per step, for 800 steps.
  assert progress(200, 2.5).endswith('320.0 images/s  ETA 0:02:00')
  assert '200/1,000' in progress.bar(200)


def test_progress_counts_from_where_a_run_resumes():
  clock = Clock()
  progress = metrics.Progress(1000, 1, step=900, clock=clock)
  clock.now += 50
  assert '1.0 images/s  ETA 0:00:50' in progress(950, 0.0)


def test_progress_survives_a_clock_that_goes_back():
  clock = Clock()
  progress = metrics.Progress(10, 4, clock=clock)
  clock.now -= 3600
  assert progress(1, 1.0).endswith('-- images/s  ETA --')
  clock.now += 2
  assert progress(2, 1.0).endswith('2.0 images/s  ETA 0:00:16')
