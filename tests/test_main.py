"""The command line: mistakes end in one line that says the way out."""

import errno
import functools
import importlib
import time

from absl import logging
import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp
import pytest
import runs

from pinpp_jax import checkpoint, main, train
from pinpp_jax.data import labels
from pinpp_jax.errors import UserError
from pinpp_jax.machine.accelerators import accelerators
from pinpp_jax.runs import faults, rundir


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'Which recipe? Give --config='),
    (['--config=configs/nope.py'], "No such file or directory: 'configs/nope"),
    (['--config=configs/mpm.py:hundred'], "variant 'hundred': words are one"),
    (
      ['--config=configs/mpm.py:smoke', '--config.objective.wieght=2'],
      "objective has no field 'wieght'; it has",
    ),
    (['--config=configs/mpm.py:smoke', '--workdri=x'], "flag 'workdri'"),
    (
      ['--config=configs/mpm.py:smoke', '--config.run=fly', '--workdir=/x'],
      "run='fly' is not one of",
    ),
    (
      [
        '--config=configs/mpm.py:smoke',
        '--config.distributed=True',
        '--workdir=/x',
      ],
      'this process was not started as one of several',
    ),
  ],
)
def test_a_mistake_on_the_command_line(arguments, message, tmp_path):
  status, output = runs.command(arguments, tmp_path / 'out')
  assert status == 2
  assert message in output
  assert 'Traceback' not in output
  assert len(output.strip().splitlines()) == 1


@pytest.mark.parametrize(
  ('flag', 'devices'), [('devices', '3'), ('local_devices', '3')]
)
def test_another_number_of_devices_than_expected(flag, devices, tmp_path):
  arguments = ['--config=configs/mpm.py:smoke', '--workdir=/x']
  status, output = runs.command(
    [*arguments, f'--{flag}={devices}'], tmp_path / 'out', devices=2
  )
  assert status == 2
  said, mistake = output.strip().splitlines()
  assert 'Process 0 of 1: 2 local of 2 devices (cpu)' in said
  assert f'--{flag}=3, but there are 2: process 0 of 1 has 2 of' in mistake


def smoke(name='mpm', **data):
  config = importlib.import_module(f'configs.{name}').get_config('smoke')
  config.data.update(data)
  return config


def test_a_missing_data_set_names_place_and_command(tmp_path):
  config = smoke(name='mpm')
  config.data.update(name='pinpp', data_dir=str(tmp_path / 'nowhere'))
  with pytest.raises(UserError) as error:
    train.run(config, tmp_path / 'run')
  assert str(tmp_path / 'nowhere' / 'pinpp') in str(error.value)
  assert 'pinpp build pinpp' in str(error.value)
  assert not (tmp_path / 'run' / 'config.json').exists()


@pytest.mark.parametrize('size', [12, 0])
def test_a_batch_that_does_not_split_over_the_devices(
  size, mini_data, tmp_path
):
  with pytest.raises(UserError, match=f'batch_size={size} does not split over'):
    train.run(smoke(data_dir=str(mini_data), batch_size=size), tmp_path)


def test_a_batch_larger_than_the_data_set(mini_data, tmp_path):
  config = smoke(data_dir=str(mini_data), batch_size=4096)
  with pytest.raises(UserError, match='more than the 384 training images'):
    train.run(config, tmp_path)


def test_a_split_of_another_hash(mini_data, tmp_path):
  config = smoke(data_dir=str(mini_data), split_hash='0' * 64)
  with pytest.raises(UserError, match='another list of images'):
    train.run(config, tmp_path)


def test_an_unknown_field_of_a_section(mini_data, tmp_path):
  config = smoke(data_dir=str(mini_data))
  with config.unlocked():
    config.model.widht = 8
  with pytest.raises(UserError, match=r"mpm has no field \['widht'\]"):
    train.run(config, tmp_path)


def test_nothing_to_start_from(mini_data, tmp_path):
  config = smoke(data_dir=str(mini_data))
  config.init.path = str(tmp_path / 'mpm_init-full')
  with pytest.raises(UserError, match='configs/mpm_init.py makes this one'):
    train.run(config, tmp_path / 'run')


def other_labels():
  return labels.class_only(('n00000001', 'n00000002'))


def test_labels_and_checkpoint_that_disagree(mini_data, tmp_path):
  workdir, before = tmp_path / 'run', tmp_path / 'before'
  config = smoke(data_dir=str(mini_data))
  for folder in (workdir, before):
    folder.mkdir()
    other_labels().save(folder / 'labels.json')
  with pytest.raises(UserError, match='another label table .2 classes'):
    train.run(config, workdir)
  assert labels.LabelTable.load(workdir / 'labels.json') == other_labels()

  with ocp.training.Checkpointer(before / 'best') as best:
    best.save_checkpointables(
      1, {'variables': {'params': {}, 'batch_stats': {}}}, force=True
    )
  config.init.path = str(before)
  with pytest.raises(UserError, match='another label table .2 classes'):
    train.run(config, tmp_path / 'next')


def test_a_run_that_kept_nothing_has_no_best(tmp_path):
  with pytest.raises(UserError, match='has no best/'):
    checkpoint.load_best(tmp_path, None)


@pytest.fixture
def warnings(monkeypatch):
  """What is logged as a warning."""
  said = []
  monkeypatch.setattr(
    logging, 'warning', lambda text, *values: said.append(text % values)
  )
  return said


def test_an_accelerator_that_goes_unused_is_told(
  monkeypatch, tmp_path, warnings
):
  here = functools.partial(accelerators, tmp_path, {})
  monkeypatch.setattr(main, 'accelerators', here)
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  main.warn_of_cpu()
  assert not warnings
  (tmp_path / 'dev').mkdir()
  (tmp_path / 'dev/nvidia0').touch()
  main.warn_of_cpu()
  assert len(warnings) == 1
  assert 'an accelerator (NVIDIA GPU), but JAX runs' in warnings[0]
  assert 'pinpp_jax[cuda13]' in warnings[0]
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  main.warn_of_cpu()
  assert len(warnings) == 1


def test_a_loop_that_stands_still_is_told(warnings):
  def stuck_in_here():
    deadline = time.monotonic() + 30
    while not warnings and time.monotonic() < deadline:
      time.sleep(0.01)

  with faults.Stall(0.1 / 60) as step_ended:
    step_ended()
    stuck_in_here()
  assert 'No step has ended for' in warnings[0]
  assert 'Thread MainThread' in warnings[0] and 'stuck_in_here' in warnings[0]


def test_a_loop_that_goes_on_is_left_alone(warnings):
  with faults.Stall(10) as step_ended:
    for _ in range(100):
      step_ended()
  with faults.Stall(0):
    time.sleep(0.01)
  assert not warnings


class FakeSource:
  def file_name(self, index):
    return f'n1/n1_{index}.JPEG'


class FakeCheckpoints:
  step = 40


def test_a_number_that_is_not_finite_stops_the_run():
  watch = faults.Watch(FakeSource(), FakeCheckpoints())
  watch(41, jnp.array([1, 2]), {'loss': 1.0, 'grad_norm': 2.0})
  watch(42, jnp.array([3, 4]), {'loss': float('nan'), 'grad_norm': 2.0})
  with pytest.raises(UserError) as error:
    watch.wait()
  for part in ('Step 42', 'n1/n1_3.JPEG, n1/n1_4.JPEG', 'step 40'):
    assert part in str(error.value)
  watch.wait()  # said once


@pytest.mark.parametrize(
  ('processes', 'error', 'words'),
  [
    (1, OSError(errno.ENOSPC, 'No space left on device', 'x'), 'failed: '),
    (1, ValueError('A: b\nOUT: Disk quota exceeded [code]'), ': OUT: Disk'),
    (2, RuntimeError('[Gloo] Connection closed by peer'), 'of the 2 processes'),
  ],
)
def test_a_full_disk_and_a_lost_process_in_words(
  processes, error, words, monkeypatch
):
  monkeypatch.setattr(jax, 'process_count', lambda: processes)
  with pytest.raises(UserError, match=words), faults.in_words():
    raise error


@pytest.mark.parametrize(
  'error', [ValueError('shapes'), RuntimeError('[Gloo] x'), UserError('Gloo')]
)
def test_other_errors_stay_what_they_are(error):
  with pytest.raises(type(error)) as raised, faults.in_words():
    raise error
  assert raised.value is error


@pytest.mark.parametrize(
  ('before', 'after', 'named'),
  [
    ({'a': {'b': 1}}, {'a': {'b': 2}}, ['a.b was 1, is 2']),
    ({'a': 1}, {'a': 1, 'c': 3}, ['c was None, is 3']),
    ({'log_steps': 1}, {'log_steps': 2}, []),
    ({'data': {'workers': 1}}, {'data': {'workers': 0}}, []),
  ],
)
def test_what_may_differ_when_a_run_is_continued(before, after, named):
  assert rundir.differences(before, after) == named
