"""A real process, really killed: nothing is lost, and bits stay the same."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import jax
import pytest
import runs

from pinpp_jax import metrics

# One worker of xdist runs them all: they share a run.
ROOT = pathlib.Path(__file__).resolve().parent.parent


def start(workdir, data_dir, *more):
  """Starts a tiny run of the main recipe on one CPU device."""
  return subprocess.Popen(
    [
      sys.executable,
      '-m',
      'pinpp_jax.main',
      '--config=configs/mpm.py:smoke',
      f'--workdir={workdir}',
      f'--config.data.data_dir={data_dir}',
      '--config.log_steps=1',
      '--config.attack.steps=1',
      '--config.evals.pgd10.attack.steps=1',
      *more,
    ],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def wait_for_step(process, step):
  """Reads the log until a step is announced."""
  for line in process.stdout:
    if re.search(rf'step {step}/', line):
      return
  raise AssertionError('the run ended before that step')


@pytest.fixture(scope='module')
def whole(mini_data, tmp_path_factory):
  """The folder of a run that nobody disturbed."""
  workdir = tmp_path_factory.mktemp('whole')
  process = start(workdir, mini_data)
  output, _ = process.communicate(timeout=600)
  assert process.returncode == 0, output
  return workdir


@pytest.mark.slow
@pytest.mark.parametrize(
  'how', [signal.SIGTERM, signal.SIGKILL], ids=['sigterm', 'sigkill']
)
def test_a_stopped_process_resumes_to_the_same_bits(
  how, whole, mini_data, tmp_path
):
  process = start(tmp_path, mini_data)
  wait_for_step(process, 5)
  process.send_signal(how)
  output, _ = process.communicate(timeout=300)
  if how == signal.SIGTERM:
    assert process.returncode == 0, output
    assert 'the same command resumes' in output
  assert not (tmp_path / 'scores.json').exists()

  process = start(tmp_path, mini_data)
  output, _ = process.communicate(timeout=600)
  assert process.returncode == 0, output
  assert 'Resuming after step' in output
  runs.assert_same(whole, tmp_path)


def test_a_workdir_of_another_recipe_is_refused(whole, mini_data):
  before = (whole / 'metrics.jsonl').read_bytes()
  process = start(whole, mini_data, '--config.optim.learning_rate=0.3')
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 2
  assert 'optim.learning_rate was 1.6, is 0.3' in output
  assert 'Traceback' not in output
  assert (whole / 'metrics.jsonl').read_bytes() == before


def test_a_finished_run_says_so_and_stays(whole, mini_data):
  before = (whole / 'metrics.jsonl').read_bytes()
  process = start(whole, mini_data)
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  assert 'finished' in output
  assert (whole / 'metrics.jsonl').read_bytes() == before


def test_a_finished_run_can_be_scored_again(whole, mini_data):
  before = json.loads((whole / 'scores.json').read_text())
  (whole / 'scores.json').unlink()
  process = start(whole, mini_data, '--config.run=evaluate')
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  assert json.loads((whole / 'scores.json').read_text()) == before


def test_two_runs_in_one_folder_are_refused(whole, mini_data):
  import fcntl

  with open(whole / 'lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    process = start(whole, mini_data)
    output, _ = process.communicate(timeout=300)
  assert process.returncode == 2
  assert 'in use by another run' in output


def test_the_run_folder_tells_what_it_was(whole):
  env = json.loads((whole / 'env.json').read_text())
  assert env['packages']['jax'] == jax.__version__
  assert len(env['data']['split_hash']) == 64
  assert '--config=configs/mpm.py:smoke' in env['command']
  scores = json.loads((whole / 'scores.json').read_text())
  assert 0 <= scores['test/part_miou_known'] <= 1
  assert 'step 1/' in (whole / 'log.txt').read_text()
  last = metrics.read(whole)[-2]
  assert last['perf/images_per_second'] > 0 and 0 <= last['perf/data_wait'] <= 1
  assert 'data:image' in (whole / 'report.html').read_text()
  assert list(whole.glob('events.out.tfevents.*'))
  assert not list(whole.rglob('*.part'))
