"""Every recipe trains, is interrupted, resumes, and ends with the same bits."""

import importlib
import pathlib

import pytest
import runs

from pinpp_jax import main, train

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = sorted(
  path.stem for path in (ROOT / 'configs').glob('*.py') if path.stem != 'base'
)
ABLATIONS = ('level1', 'level2', 'object', 'two_stage')


def config(name, variant):
  return importlib.import_module(f'configs.{name}').get_config(variant)


# Those that do something else have tests of their own: tests/test_<run>.py.
TRAINED = [name for name in NAMES if config(name, 'smoke').run == 'train']
OPTIONS = (*ABLATIONS, 'reference')


def smoke(name, option, data_dir):
  small = config(name, f'{option}smoke')
  small.data.data_dir = str(data_dir)
  return small


@pytest.mark.slow
@pytest.mark.parametrize('name', TRAINED)
def test_an_interrupted_run_ends_like_the_whole_run(name, tmp_path, mini_data):
  recipe = smoke(name, '', mini_data)
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  with runs.killed_copy(whole, parts):
    train.run(recipe, whole)
  train.run(recipe, parts)

  runs.assert_same(whole, parts)
  assert (parts / 'report.html').exists()


@pytest.mark.slow
@pytest.mark.parametrize('option', OPTIONS)
def test_an_ablation_runs_to_its_report(option, tmp_path, mini_data):
  """Resuming is the same for all networks of configs/mpm.py."""
  train.run(smoke('mpm', f'{option}-', mini_data), tmp_path)
  assert (tmp_path / 'scores.json').exists()
  assert (tmp_path / 'report.html').exists()


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('size', ['full', 'mini', 'smoke'])
def test_every_size_exists(name, size):
  assert config(name, size).run in main.RUNS


def test_an_unknown_word_is_refused():
  with pytest.raises(ValueError, match="'hundred-smoke'"):
    config('mpm', 'hundred-smoke')
