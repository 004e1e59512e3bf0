"""Inputs that once failed give what their READMEs expect."""

import runpy

import pytest

from pinpp_jax.data.build import run as build
from pinpp_jax.data.imagenet import layouts
from pinpp_jax.errors import UserError
from pinpp_jax.models import torch_files
from pinpp_jax.tools import check


def test_a_flat_val_without_labels(cases, tmp_path):
  release = cases / '1-flat-val' / 'R'
  checked = check.check(release)
  assert checked.sound and checked.copy is not None
  build.build('pinpp', tmp_path, manual_dir=release)


@pytest.mark.parametrize('imagenet', ['folder', 'tar'])
def test_hidden_files(cases, imagenet):
  copy = layouts.open_copy(cases / '4-hidden-files' / imagenet)
  names = copy.file_names()
  assert names and all(copy.read(name) for name in names)


def test_a_damaged_devkit(cases, tmp_path):
  release = cases / '2-devkit-damaged' / 'R'
  for call in (
    lambda: check.check(release),
    lambda: build.build('pinpp', tmp_path, manual_dir=release),
  ):
    with pytest.raises(UserError, match=r'devkit_t12\.tar\.gz'):
      call()


def test_sixteen_bits(cases):
  release = cases / '8-sixteen-bit' / 'R'
  kinds = {kind.name: kind.count for kind in check.check(release).kinds}
  assert kinds['image of 16 bits'] == 1


def test_names_in_two_unicode_forms(cases):
  assert check.check(cases / '12-nfd-names' / 'R').sound


def test_averaged_weights(cases, tmp_path, monkeypatch, capsys):
  pytest.importorskip('torch')
  monkeypatch.chdir(tmp_path)
  runpy.run_path(str(cases / '10-averaged-weights' / 'make_and_read.py'))
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 4 and all(line.endswith(' ok') for line in lines)


def test_cut_weights(cases, tmp_path):
  pytest.importorskip('torch')
  for path in (cases / '5-pth-cut').glob('*.pth'):
    with pytest.raises(UserError, match='fetch it again'):
      torch_files.read_file(path)
