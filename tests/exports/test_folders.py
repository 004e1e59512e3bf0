"""An export is there whole, or not at all."""

import pathlib
import subprocess
import sys

import pytest

from pinpp_jax.errors import UserError
from pinpp_jax.exports import folders

ROOT = pathlib.Path(__file__).parents[2]


def test_a_folder_appears_with_everything_in_it(tmp_path):
  target = tmp_path / 'deep' / 'out'
  with folders.new(target) as partial:
    (partial / 'a').write_text('1')
    assert not target.exists()
  assert (target / 'a').read_text() == '1'
  assert [path.name for path in target.parent.iterdir()] == ['out']


def test_an_empty_folder_is_taken_a_full_one_refused(tmp_path):
  target = tmp_path / 'out'
  target.mkdir()
  with folders.new(target) as partial:
    (partial / 'a').write_text('1')
  for _ in range(2):
    with pytest.raises(UserError, match='not empty. Name another'):
      folders.new(target).__enter__()
  with pytest.raises(UserError, match='not empty'):
    folders.new(target / 'a').__enter__()
  assert (target / 'a').read_text() == '1'


def test_after_an_error_nothing_is_left(tmp_path):
  with (
    pytest.raises(UserError, match='cannot be written.*no room'),
    folders.new(tmp_path / 'out') as partial,
  ):
    (partial / 'a').write_text('1')
    raise OSError('no room')
  assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed(tmp_path):
  code = (
    'import os, sys; from pinpp_jax.exports import folders\n'
    'with folders.new(sys.argv[1]) as partial:\n'
    '  (partial / "half").mkdir(); (partial / "x").write_text("")\n'
    '  os._exit(9)'
  )
  target = tmp_path / 'out'
  words = [sys.executable, '-c', code, str(target)]
  assert subprocess.run(words, cwd=ROOT).returncode == 9
  assert [path.name for path in tmp_path.iterdir()] == ['out.partial']
  with folders.new(target) as partial:
    assert not list(partial.iterdir())


def test_two_processes_do_not_write_one_folder(tmp_path):
  target = tmp_path / 'out'
  with folders.new(target) as partial:
    (partial / 'a').write_text('1')
    with pytest.raises(UserError, match='another process is writing'):
      folders.new(target).__enter__()
    assert (partial / 'a').exists()
  assert (target / 'a').exists()
