"""`tfds build` and our own command write the same bytes.

The second needs TensorFlow, which does not belong into this environment: the
variable PINPP_TFDS_PYTHON names a Python that has the extra [tfds-cli].
"""

import os
import pathlib
import shutil
import subprocess

import pytest

from pinpp_jax.data.build import shards
from pinpp_jax.data.build.run import build
from pinpp_jax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
DATASETS = ROOT / 'datasets'


@pytest.fixture
def python():
  path = os.environ.get('PINPP_TFDS_PYTHON', '')
  if not path:
    pytest.skip('PINPP_TFDS_PYTHON names no Python with the extra [tfds-cli]')
  return path


def run(python, *arguments, fails=False):
  """Returns what a program prints; it must end well, or must not."""
  paths = [str(ROOT), str(DATASETS)]
  environment = dict(
    os.environ, PYTHONPATH=os.pathsep.join(paths), TF_CPP_MIN_LOG_LEVEL='3'
  )
  done = subprocess.run(
    [python, *arguments],
    cwd=DATASETS,
    env=environment,
    capture_output=True,
    text=True,
  )
  printed = done.stdout + done.stderr
  assert bool(done.returncode) == fails, printed[-6000:]
  return printed


# So that a small data set has several shards.
SMALL = 2000
BEAM = '--beam_pipeline_options=runner=DirectRunner'


def tfds_command(dataset, data_dir, *arguments):
  """Returns a program that is `tfds` here, and its arguments."""
  command = f"""
from pinpp_jax.data.build import shards
shards.SHARD_BYTES = {shards.SHARD_BYTES}
from tensorflow_datasets.scripts.cli.main import *
launch_cli()"""
  return command, ['build', dataset, f'--data_dir={data_dir}', *arguments]


def tfds_build(python, dataset, data_dir, *arguments):
  command, words = tfds_command(dataset, data_dir, *arguments)
  run(python, '-c', command, *words)
  return pathlib.Path(data_dir) / dataset / '1.0.0'


def contents(folder):
  # dataset_info.json names the module of the builder.
  return {
    path.name: path.read_bytes()
    for path in folder.iterdir()
    if path.name != 'dataset_info.json'
  }


@pytest.mark.parametrize('which', ['dummy', 'real'])
def test_both_doors_write_the_same_bytes(which, python, tmp_path, request):
  release = DATASETS / 'pinpp' / 'dummy_data'
  if which == 'real':
    release = request.getfixturevalue('pin_real')
  one = build('pinpp', tmp_path / 'one', manual_dir=release)
  manual = f'--manual_dir={release}'
  other = tfds_build(python, 'pinpp', tmp_path / 'other', manual)
  assert contents(one) == contents(other)


@pytest.mark.parametrize('mode', ['in_memory', 'multi_processing'])
def test_beam_writes_the_same_bytes(mode, python, tmp_path, monkeypatch):
  monkeypatch.setattr(shards, 'SHARD_BYTES', SMALL)
  release = DATASETS / 'pinpp' / 'dummy_data'
  one = build('pinpp', tmp_path / 'one', manual_dir=release)
  other = tfds_build(
    python,
    *('pinpp', tmp_path / 'other', f'--manual_dir={release}'),
    f'{BEAM},direct_num_workers=2,direct_running_mode={mode}',
  )
  assert len(list(one.glob('*train.array_record-*'))) > 1
  assert contents(one) == contents(other)


def test_beam_names_the_first_broken_thing(python, tmp_path):
  release = tmp_path / 'release'
  shutil.copytree(DATASETS / 'pinpp' / 'dummy_data', release)
  first, second = sorted((release / 'json').glob('*.json'))[:2]
  for path in (first, second):
    path.write_text(path.read_text()[:-9])
  with pytest.raises(UserError, match=first.name) as found:
    build('pinpp', tmp_path / 'one', manual_dir=release)
  command, words = tfds_command(
    'pinpp', tmp_path / 'other', f'--manual_dir={release}', BEAM
  )
  assert str(found.value) in run(python, '-c', command, *words, fails=True)


@pytest.mark.parametrize('name', ['pinpp', 'pinpp_mini'])
def test_builders_pass_the_tests_of_tfds(name, python):
  path = f'{name}/{name}_dataset_builder_test.py'
  # Away from this repository's own pytest settings, which need jax.
  run(python, '-m', 'unittest', path.removesuffix('.py').replace('/', '.'))


@pytest.mark.parametrize('name', ['pinpp', 'pinpp_mini'])
def test_folders_are_laid_out_as_tfds_new_does(name):
  folder = DATASETS / name
  for file in (
    f'{name}_dataset_builder.py',
    f'{name}_dataset_builder_test.py',
    'README.md',
    'CITATIONS.bib',
    'TAGS.txt',
    'checksums.tsv',
    'dummy_data',
  ):
    assert (folder / file).exists()


def test_no_package_is_called_datasets():
  # The name belongs to Hugging Face's library.
  assert not (DATASETS / '__init__.py').exists()
