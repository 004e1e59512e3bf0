"""Without a variable, tools and runs find the data of the checkout."""

import pathlib

import pytest

from pinpp_jax.data.read import sources
from pinpp_jax.errors import UserError
from pinpp_jax.machine import data_folder


@pytest.fixture
def checkout(tmp_path, monkeypatch):
  monkeypatch.delenv('TFDS_DATA_DIR', raising=False)
  (tmp_path / 'pyproject.toml').touch()
  return tmp_path


def test_the_variable_comes_first(checkout, monkeypatch):
  (checkout / 'data').mkdir()
  monkeypatch.setenv('TFDS_DATA_DIR', '~/mine')
  assert data_folder.default(checkout) == pathlib.Path.home() / 'mine'


def test_then_the_data_of_the_checkout_named_once(checkout, capsys):
  usual = pathlib.Path('~/tensorflow_datasets').expanduser()
  assert data_folder.default(checkout) == usual
  assert not capsys.readouterr().err
  (checkout / 'data').mkdir()
  for _ in range(2):
    assert data_folder.default(checkout) == checkout / 'data'
  assert capsys.readouterr().err.count(str(checkout / 'data')) == 1


def test_an_installed_package_has_no_checkout(checkout):
  (checkout / 'data').mkdir()
  (checkout / 'pyproject.toml').unlink()
  assert data_folder.default(checkout).name == 'tensorflow_datasets'


def test_a_set_in_the_usual_folder_is_named(checkout, monkeypatch, mini_data):
  (checkout / 'data').mkdir()
  monkeypatch.setattr(data_folder, 'USUAL', mini_data)
  with pytest.raises(UserError, match=f'--data_dir={mini_data}'):
    sources.dataset_folder('pinpp_mini', str(checkout / 'data'))
