"""The doctor says what is there and what to type, and never falls over."""

import json
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

from pinpp_jax import tools
from pinpp_jax.machine.accelerators import accelerators
from pinpp_jax.tools import build
from pinpp_jax.tools.doctor import cli, diagnosis, machine

ROOT = pathlib.Path(__file__).parents[2]
DUMMY = ROOT / 'datasets' / 'pinpp' / 'dummy_data'
CPU = {'version': '9.9', 'backend': 'cpu', 'kinds': ['cpu']}


@pytest.fixture(autouse=True)
def here(monkeypatch):
  """Spares a process per test: JAX itself is asked once, below."""
  monkeypatch.setattr(machine, 'probe', lambda: CPU)
  monkeypatch.delenv('PINPP_IMAGENET_DIR', raising=False)


def run(capsys, *words):
  status = tools.main(['doctor', '--json', *map(str, words)])
  return status, json.loads(capsys.readouterr().out)


def line(sections, what, state=None):
  lines = [one for some in sections.values() for one in some]
  found = [
    one
    for one in lines
    if one.what.startswith(what) and state in (None, one.state)
  ]
  assert found, (what, lines)
  return found[0]


def examine(data_dir, **more):
  return cli.examine(str(data_dir), **{k: str(v) for k, v in more.items()})


def test_jax_is_asked_in_a_process_of_its_own(monkeypatch):
  monkeypatch.undo()
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  found = machine.probe()
  assert found['backend'] == 'cpu' and found['kinds']
  monkeypatch.setenv('JAX_PLATFORMS', 'no_such_platform')
  assert 'no_such_platform' in machine.probe()['error']


def test_a_fresh_machine_is_told_what_to_type(tmp_path, capsys):
  status = tools.main(['doctor', f'--data_dir={tmp_path / "data"}'])
  output = capsys.readouterr().out
  assert status == 0
  assert f'build pinpp_mini --data_dir={tmp_path / "data"}' in output
  assert 'huggingface.co' in output and 'PINPP_IMAGENET_DIR' in output
  assert '0 missing or broken' in output
  assert not (tmp_path / 'data').exists()


def test_the_command_it_gives_builds_the_data_set(tmp_path, capsys):
  found = examine(tmp_path, manual_dir=DUMMY)
  command = shlex.split(line(found, 'pinpp', 'warning').command)
  assert command[:2] == ['pinpp', 'build']
  assert build.main(command[2:]) == 0
  again = examine(tmp_path, manual_dir=DUMMY)
  assert '2 classes, 4 parts' in line(again, 'pinpp 1.0.0', 'ok').found


def test_built_data_sets_are_compared_with_their_hashes(mini_data, tmp_path):
  built = mini_data / 'pinpp_mini' / '1.0.0'
  say = lambda: line(examine(tmp_path), 'pinpp_mini 1.0.0')
  copy = tmp_path / 'pinpp_mini' / '1.0.0'

  def fresh():
    shutil.rmtree(tmp_path / 'pinpp_mini', ignore_errors=True)
    shutil.copytree(built, copy)

  fresh()
  assert say().state == 'ok' and '12 classes, 47 parts' in say().found
  next(copy.glob('*.array_record*')).unlink()
  assert say().state == 'missing' and 'shards' in say().found
  fresh()
  path = copy / 'labels.json'
  path.write_text(path.read_text().replace('wagon wheel', 'wagon tyre'))
  assert say().state == 'missing' and 'labels.json' in say().found
  fresh()
  path = copy / 'splits.json'
  path.write_text(path.read_text().replace('n99000001_1.', 'n99000001_2.'))
  assert say().state == 'missing' and 'splits.json' in say().found
  fresh()
  (copy / 'labels.json').unlink()
  assert say().state == 'missing' and say().command == f'rm -r {copy}'
  left = tmp_path / 'pinpp_mini' / '1.0.0.incompleteXYZ_1.0.0'
  left.mkdir()
  assert line(examine(tmp_path), 'unfinished').command == f'rm -r {left}'


def test_what_was_named_must_be_there(tmp_path, capsys):
  status, _ = run(capsys, f'--data_dir={tmp_path}', '--manual_dir=/absent/x')
  assert status == 1
  found = examine(tmp_path, manual_dir='/absent/x')
  assert '/absent/x does not exist' in line(found, 'release', 'missing').found
  found = examine(tmp_path, imagenet_dir='/absent/y')
  assert '/absent/y' in line(found, 'ImageNet copy', 'missing').found


def test_a_copy_without_the_images_of_the_release_is_told(tmp_path):
  release = pathlib.Path(shutil.copytree(DUMMY, tmp_path / 'release'))
  shutil.rmtree(release / 'train' / 'n01440764')
  found = examine(tmp_path, manual_dir=release)
  said = line(found, 'ImageNet copy', 'missing')
  assert 'first n01440764' in said.found
  for path in (release / 'train').rglob('*.JPEG'):
    path.rename(path.with_name(f'other_{path.name}'))
  said = line(examine(tmp_path, manual_dir=release), 'ImageNet copy', 'missing')
  assert 'n01440764' in said.found
  (release / 'category_name.json').unlink()
  said = line(examine(tmp_path, manual_dir=release), 'release', 'warning')
  assert 'category_name.json' in said.found


def test_accelerators_leave_signs(tmp_path):
  look = lambda: accelerators(tmp_path, {})
  assert look() == {}
  (tmp_path / 'dev').mkdir()
  (tmp_path / 'dev' / 'nvidia0').touch()
  assert look() == {'NVIDIA GPU': 'cuda13'}
  driver = tmp_path / 'proc' / 'driver' / 'nvidia' / 'version'
  driver.parent.mkdir(parents=True)
  text = 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}.104.05  Sat Aug 19'
  driver.write_text(text.format(535))
  assert look() == {'NVIDIA GPU': 'cuda12'}
  driver.write_text(text.format(580).replace('Module', 'Module for x86_64'))
  assert look() == {'NVIDIA GPU': 'cuda13'}
  (tmp_path / 'dev' / 'accel0').touch()
  assert look()['TPU'] == 'tpu'
  assert 'TPU' in accelerators(tmp_path / 'x', {'TPU_NAME': 'a'})


def test_an_accelerator_that_is_not_used_is_told():
  there = {'NVIDIA GPU': 'cuda13'}
  lines = list(machine.devices(CPU, there, ''))
  assert [one.state for one in lines] == ['ok', 'warning']
  assert '[cuda13]' in lines[1].command
  lines = list(machine.devices(CPU, there, 'cpu'))
  assert lines[1].command == 'unset JAX_PLATFORMS'
  gpu = {'version': '9.9', 'backend': 'gpu', 'kinds': ['H100', 'H100']}
  lines = list(machine.devices(gpu, there, ''))
  assert [one.state for one in lines] == ['ok']
  assert '2 x H100' in lines[0].found
  lines = list(machine.devices({'error': 'no plug-in'}, there, ''))
  assert [one.state for one in lines] == ['missing']


def test_packages_of_another_version_are_told(monkeypatch):
  real = machine.metadata.version
  monkeypatch.setattr(
    machine.metadata,
    'version',
    lambda name: '0.4.1' if name == 'flax' else real(name),
  )
  lines = list(machine.installed())
  said = next(one for one in lines if one.what == 'flax')
  assert said.state == 'missing' and said.found.startswith(
    '0.4.1; needed: flax'
  )


def test_whatever_fails_is_one_line():
  def look():
    yield diagnosis.ok('a', 'b')
    raise RuntimeError('one\ntwo')

  lines = list(diagnosis.guarded('c', look))
  assert [one.state for one in lines] == ['ok', 'missing']
  assert (lines[1].what, lines[1].found) == ('c', 'one two')


def test_it_needs_nothing_but_python(tmp_path):
  # Neither a virtual environment's packages nor the user's.
  done = subprocess.run(
    [sys.executable, '-S', '-m', 'pinpp_jax.tools.doctor'],
    cwd=ROOT,
    env={'HOME': str(tmp_path), 'PYTHONNOUSERSITE': '1'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert 'Traceback' not in done.stdout + done.stderr
  assert 'Devices' in done.stdout and 'No module named' in done.stdout


def test_a_small_shared_memory_and_a_small_disk_are_told(tmp_path, monkeypatch):
  usage = lambda free: type('Usage', (), {'free': free})
  look = lambda: {
    line.what: line for line in machine.machine(tmp_path, tmp_path)
  }
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage(64 * 2**20))
  found = look()
  assert found['batches'].state == found['disk'].state == 'warning'
  assert '0.07 GB' in found['batches'].found
  assert 'pinpp_pseudo 130 GB' in found['disk'].found
  monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage(10**12))
  assert {line.state for line in look().values()} == {'ok'}
