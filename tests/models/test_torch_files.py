"""Files of weights: what is read, what is refused, what is written."""

import argparse
import builtins
import json

import numpy as np
import pytest
import safetensors.numpy

from pinpp_jax import models
from pinpp_jax.errors import UserError
from pinpp_jax.models.torch import files, importer, names


@pytest.fixture
def torch():
  return pytest.importorskip('torch')


def test_written_files_are_read_back(tmp_path):
  model = models.MPM(num_classes=5, num_parts=6, depth=18, width=4)
  tensors = {
    name: np.full(entry.shape, 0.5, np.float32)
    for name, entry in names.entries(model).items()
  }
  variables = importer.variables(model, tensors)
  path = tmp_path / 'new' / 'model.safetensors'
  files.write_file(path, model, variables)
  back = files.read_file(path)
  assert set(tensors) < set(back)
  importer.variables(model, back)
  config = json.loads((path.parent / 'config.json').read_text())
  assert config.pop('model') == 'MPM'
  assert models.MPM(**config) == model
  assert sorted(p.name for p in path.parent.iterdir()) == [
    'config.json',
    'model.safetensors',
  ]


def test_torch_checkpoints(torch, tmp_path):
  weights = {'a': torch.arange(6.0).reshape(2, 3), 'n': torch.tensor(3)}
  half = {'a': torch.ones(2, dtype=torch.bfloat16)}
  path = tmp_path / 'checkpoint.pth.tar'
  checkpoint = {
    'epoch': 3,
    'args': argparse.Namespace(lr=0.1),
    'optimizer': {'state': {0: {'momentum': torch.ones(1)}}},
    'state_dict': weights,
    'state_dict_ema': half,
  }
  torch.save(checkpoint, path)
  read = files.read_file(path, 'state_dict')
  np.testing.assert_array_equal(read['a'], [[0, 1, 2], [3, 4, 5]])
  half = files.read_file(path, 'state_dict_ema')['a']
  assert half.dtype == np.float32
  with pytest.raises(UserError, match="'state_dict', 'state_dict_ema'"):
    files.read_file(path)
  with pytest.raises(UserError, match="no state dict init.key='model'"):
    files.read_file(path, 'model')
  torch.save({'model': weights, 'epoch': 3}, path)
  assert set(files.read_file(path)) == {'a', 'n'}
  torch.save(weights, path)
  assert set(files.read_file(path)) == {'a', 'n'}


class Payload:
  """What a hostile pickle would run."""

  def __reduce__(self):
    return (pytest.fail, ('a pickle was executed',))


def test_pickled_code_is_never_run(torch, tmp_path):
  path = tmp_path / 'evil.pth'
  torch.save({'state_dict': {'a': torch.ones(1)}, 'x': Payload()}, path)
  with pytest.raises(UserError, match='weights_only'):
    files.read_file(path)


@pytest.mark.parametrize(
  'name, word',
  [
    ('absent.safetensors', 'does not exist'),
    ('weights.npz', 'must end in'),
    ('broken.safetensors', 'not a safetensors file'),
  ],
)
def test_bad_files_are_refused(tmp_path, name, word):
  if 'absent' not in name:
    (tmp_path / name).write_bytes(b'nothing')
  with pytest.raises(UserError, match=word):
    files.read_file(tmp_path / name)


def test_broken_torch_file_is_refused(torch, tmp_path):
  (tmp_path / 'broken.pth').write_bytes(b'nothing')
  with pytest.raises(UserError, match=r'broken\.pth'):
    files.read_file(tmp_path / 'broken.pth')


def test_whatever_a_cut_file_raises_is_one_line(torch, tmp_path):
  path = tmp_path / 'x.pth'
  torch.save({'fc.weight': torch.ones(64, 64)}, path)
  whole = path.read_bytes()
  for size in (0, 1, 100, len(whole) // 2, len(whole) - 30):
    path.write_bytes(whole[:size])
    with pytest.raises(UserError, match='fetch it again') as error:
      files.read_file(path)
    assert '\n' not in str(error.value)


def test_tensors_of_every_kind_are_read(torch, tmp_path):
  path, value = tmp_path / 'x.pth', torch.eye(4)
  kinds = {
    'half': value.to(torch.bfloat16),
    'float8': value.to(torch.float8_e4m3fn),
    'sparse': value.to_sparse(),
  }
  torch.save(kinds, path)
  found = files.read_file(path)
  assert set(found) == set(kinds)
  for array in found.values():
    np.testing.assert_array_equal(array, np.eye(4, dtype=np.float32))


@pytest.mark.parametrize('prefix', ['_orig_mod.', 'module._orig_mod.'])
def test_wrappers_and_their_counters_are_ignored(prefix):
  model = models.ResNet(num_classes=5, depth=18, width=4)
  tensors = {
    f'{prefix}{name}': np.ones(entry.shape, np.float32)
    for name, entry in names.entries(model).items()
  }
  counted = {**tensors, 'n_averaged': np.array(3)}
  importer.variables(model, counted)
  # Some wrappers wrap a part only.
  importer.backbone_variables(
    model,
    {k.removeprefix(prefix) if 'fc' in k else k: v for k, v in counted.items()},
  )


def test_missing_torch_names_the_extra(tmp_path, monkeypatch):
  path = tmp_path / 'weights.pth'
  path.write_bytes(b'')

  def without_torch(name, *args):
    raise ImportError(name)

  monkeypatch.setattr(files.importlib, 'import_module', without_torch)
  with pytest.raises(UserError, match=r'pinpp_jax\[torch\]'):
    files.read_file(path)


def test_safetensors_need_no_torch(tmp_path, monkeypatch):
  path = tmp_path / 'weights.safetensors'
  safetensors.numpy.save_file({'a': np.ones(2, np.float32)}, path)
  real = builtins.__import__

  def without_torch(name, *args, **keywords):
    assert name != 'torch'
    return real(name, *args, **keywords)

  monkeypatch.setattr(builtins, '__import__', without_torch)
  assert set(files.read_file(path)) == {'a'}
