"""Every row of docs/reliability.md, done to real processes."""

import os
import random
import re
import resource
import shutil
import subprocess
import time

import numpy as np
import pytest
import runs
from runs import Run

from pinpp_jax import checkpoint
from pinpp_jax.checkpoint import checksums
from pinpp_jax.errors import UserError


@pytest.fixture(scope='module')
def whole(mini_data, shared):
  """The folder of a run that nobody disturbed: 16 steps, saved every 4."""
  return shared('whole', lambda workdir: Run(workdir, mini_data).finish())


@pytest.fixture(scope='module')
def killed(mini_data, shared):
  """The folder of a run killed with checkpoints of steps 4 and 8."""

  def make(workdir):
    run = Run(workdir, mini_data)
    run.until_step(9)
    run.kill()

  return shared('killed', make)


KILLS = 20
# What the run is doing when it is killed; a checkpoint is written every 3
# steps, scores are read every 6, an epoch has 8.
LONG = ('--config.optim.epochs=12.0', '--config.checkpoint_steps=3')
POINTS = ('step', 'checkpoint', 'evaluation', 'epoch edge')


def reached(point, workdir, output):
  """Whether the last step line, or the folder, is that of a kind of point."""
  if point == 'checkpoint':
    folder = workdir / 'checkpoints'
    return any('tmp' in name for name in os.listdir(folder))
  steps = [int(step) for step in re.findall(r'step (\d+)/', output)]
  every = {'step': 1, 'evaluation': 6, 'epoch edge': 8}[point]
  return any(step % every == 0 for step in steps)


@pytest.mark.slow
def test_twenty_kills_lose_nothing(mini_data, tmp_path):
  Run(tmp_path / 'whole', mini_data, *LONG).finish()
  rng = random.Random(0)
  points = list(POINTS) * (KILLS // len(POINTS))
  rng.shuffle(points)
  workdir = tmp_path / 'killed'
  for point in points:
    run = Run(workdir, mini_data, *LONG)
    # Before that there is nothing to disturb.
    run.until(lambda output: 'step ' in output)
    assert run.until(lambda o, p=point: reached(p, workdir, o)), run.output
    time.sleep(rng.uniform(0, 0.01 if point == 'checkpoint' else 0.1))
    run.kill()
    assert not (workdir / 'scores.json').exists(), 'it had ended'
  assert 'Resuming after step' in Run(workdir, mini_data, *LONG).finish()
  runs.assert_same(tmp_path / 'whole', workdir)


@pytest.mark.slow
@pytest.mark.parametrize('lost', [0, 1])
def test_a_lost_process_ends_the_other(lost, mini_data, tmp_path):
  more = ('--config.optim.epochs=4.0',)
  pair = runs.pair(tmp_path / 'run', mini_data, *more)
  pair[0].until_step(6)
  pair[lost].kill()
  status, output = pair[1 - lost].wait(seconds=60)
  assert status != 0
  # In our words, or in JAX's when its heartbeat stops first.
  assert re.search('processes is gone|another task died', output), output

  # One process goes on with what two have saved.
  output = Run(tmp_path / 'run', mini_data, *more).finish()
  assert re.search(r'Resuming after step \d', output)


def largest(folder):
  """Returns the largest file: it holds the weights."""
  files = (path for path in folder.rglob('*') if path.is_file())
  return max(files, key=lambda path: path.stat().st_size)


def flip_a_byte(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def cut_in_half(path):
  os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize('damage', [flip_a_byte, cut_in_half])
def test_a_damaged_checkpoint_is_not_read(
  damage, killed, whole, mini_data, tmp_path
):
  workdir = tmp_path / 'run'
  shutil.copytree(killed, workdir)
  damage(largest(workdir / 'checkpoints/8'))
  output = Run(workdir, mini_data).finish()
  assert 'checkpoints/8 is damaged' in output
  assert 'Resuming after step 4' in output
  assert (workdir / 'damaged/checkpoints-8').is_dir()
  runs.assert_same(whole, workdir)


def test_damaged_best_weights_are_refused(whole, tmp_path):
  shutil.copytree(whole / 'best', tmp_path / 'best')
  (step,) = (tmp_path / 'best').iterdir()
  flip_a_byte(largest(step))
  with pytest.raises(UserError, match='is damaged: .* has changed'):
    checkpoint.load_best(tmp_path, None)


def test_every_file_of_a_checkpoint_is_watched(killed, tmp_path):
  folder = tmp_path / '8'
  shutil.copytree(killed / 'checkpoints/8', folder)
  subprocess.run(
    ['sha256sum', '--check', '--quiet', checksums.FILE], cwd=folder, check=True
  )
  assert not checksums.damage(folder)
  for path in [
    p for p in folder.rglob('*') if p.is_file() and p.stat().st_size
  ]:
    before = path.read_bytes()
    flip_a_byte(path)
    assert checksums.damage(folder), path
    path.unlink()
    assert checksums.damage(folder) or path.name == checksums.FILE
    path.write_bytes(before)
  assert not checksums.damage(folder)


@pytest.mark.slow
def test_a_full_disk_is_said_and_loses_nothing(whole, mini_data, tmp_path):
  run = Run(tmp_path / 'run', mini_data)
  run.until_step(5)
  # Enough for what is logged, too little for the weights.
  resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
  status, output = run.wait()
  assert status == 2
  assert 'pinpp_jax: Writing failed' in output
  assert 'Traceback' not in output
  output = Run(tmp_path / 'run', mini_data).finish()
  assert 'Resuming after step 4' in output
  runs.assert_same(whole, tmp_path / 'run')


def put_nan():
  """Makes one pixel of the sixth batch of training not a number."""
  from pinpp_jax import sharding

  put, taken = sharding.put, []

  def faulty(batch, mesh):
    if 'mask' not in batch:
      taken.append(batch)
    if len(taken) == 6 and batch is taken[-1]:
      image = batch['image'].astype(np.float32)
      image[3, 0, 0, 0] = np.nan
      batch = batch | {'image': image}
    return put(batch, mesh)

  sharding.put = faulty


def test_a_nan_stops_the_run_before_it_is_saved(whole, mini_data, tmp_path):
  status, output = Run(tmp_path / 'run', mini_data, fault=put_nan).wait()
  assert status == 2
  last = output.splitlines()[-1]
  assert 'Step 6 is not finite: loss nan' in last
  assert last.count('.JPEG') == 48
  assert 'The checkpoint of step 4 is untouched' in last
  output = Run(tmp_path / 'run', mini_data).finish()
  assert 'Resuming after step 4' in output
  runs.assert_same(whole, tmp_path / 'run')


@pytest.mark.slow
def test_a_damaged_record_is_named_or_skipped(mini_data, tmp_path):
  data = tmp_path / 'data'
  shutil.copytree(mini_data / 'pinpp_mini', data / 'pinpp_mini')
  (shard, *_) = data.rglob('*train*.array_record*')
  flip_a_byte(shard)
  status, output = Run(tmp_path / 'run', data).wait()
  assert status == 2
  named = re.search(r'Record \d+ of train in .*a shard is damaged', output)
  assert named and 'Traceback' not in output
  output = Run(tmp_path / 'run', data, '--config.data.skip_bad=True').finish()
  assert re.search(r'Skipped: Record \d+ of train', output)
  assert 'Skipped 1 of 384 training images' in output


@pytest.mark.slow
def test_what_eight_devices_saved_goes_on_with_any_number(mini_data, tmp_path):
  run = Run(tmp_path / 'saved', mini_data, devices=8)
  run.until_step(5)
  run.kill()
  found = []
  for devices in (8, 1, 2):
    workdir = tmp_path / f'on{devices}'
    shutil.copytree(tmp_path / 'saved', workdir)
    run = Run(workdir, mini_data, devices=devices)
    run.until_step(6)
    run.kill()
    assert f'{devices} local of {devices} devices' in run.output
    assert 'Resuming after step 4' in run.output
    found.append(step_of(workdir, 5))
  assert found[1] == pytest.approx(found[0], rel=1e-4)
  assert found[2] == pytest.approx(found[0], rel=1e-4)


def step_of(workdir, step):
  """Returns what the log has of a step: it tells the weights before it."""
  (row,) = [r for r in runs.rows(workdir) if r['step'] == step]
  return row


def turn_back_the_clock():
  """Lets the time of day run backwards, a minute for every second."""
  started, elapsed = time.time(), time.monotonic
  zero = elapsed()
  time.time = lambda: started - 60 * (elapsed() - zero)


@pytest.mark.slow
def test_a_clock_that_goes_backwards_changes_nothing(
  killed, whole, mini_data, tmp_path
):
  workdir = tmp_path / 'run'
  shutil.copytree(killed, workdir)
  output = Run(workdir, mini_data, fault=turn_back_the_clock).finish()
  assert 'Resuming after step 8' in output
  runs.assert_same(whole, workdir)


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused(mini_data, tmp_path):
  first = Run(tmp_path / 'run', mini_data)
  first.until_step(1)
  status, output = Run(tmp_path / 'run', mini_data).wait()
  assert status == 2
  assert 'in use by another run' in output.splitlines()[-1]
  first.finish()


@pytest.fixture(scope='session')
def oldest():
  """An interpreter with the oldest supported packages; .ci/run names one."""
  path = os.environ.get('PINPP_OLDEST_PYTHON', '')
  if not path:
    pytest.skip('PINPP_OLDEST_PYTHON names no Python with the oldest packages')
  return path


@pytest.mark.slow
def test_other_versions_of_the_packages_read_the_checkpoint(
  oldest, killed, whole, mini_data, tmp_path
):
  workdir = tmp_path / 'run'
  shutil.copytree(killed, workdir)
  done = subprocess.run(
    [oldest, '-m', 'pinpp_jax.main', *runs.flags(workdir, mini_data)],
    cwd=runs.ROOT,
    env=os.environ
    | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1', 'XLA_FLAGS': ''},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout
  assert 'Resuming after step 8' in done.stdout
  assert step_of(workdir, 9) == pytest.approx(step_of(whole, 9), rel=1e-3)
  assert runs.best(workdir)
