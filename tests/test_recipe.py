"""Where the first weights come from."""

import importlib

import jax
import numpy as np
import pytest

from pinpp_jax import checkpoint, recipe, sharding
from pinpp_jax.data import Recorded
from pinpp_jax.data.labels import class_only
from pinpp_jax.errors import UserError
from pinpp_jax.models.torch import exporter, files


@pytest.fixture(scope='module')
def labels(mini_data):
  source = Recorded(dataset='pinpp_mini', data_dir=str(mini_data), split='test')
  return source.labels


def smoke(name='mpm', variant='smoke'):
  return importlib.import_module(f'configs.{name}').get_config(variant)


def variables(config, labels, path='', part='all'):
  config.init.update(path=str(path), part=part)
  model = recipe.model(config, labels)
  found = recipe.initial_variables(config, model, labels, sharding.mesh())
  return model, jax.device_get(found)


def equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_torch_file_of_the_same_model(labels, tmp_path):
  model, other = variables(smoke(), labels)
  other = jax.tree.map(lambda x: x + 1, other)
  files.write_file(tmp_path / 'mpm.safetensors', model, other)
  _, found = variables(smoke(), labels, tmp_path / 'mpm.safetensors')
  equal(found, other)


def test_the_backbone_of_a_plain_network(labels, tmp_path):
  plain, other = variables(smoke('resnet'), labels)
  other = jax.tree.map(lambda x: x + 1, other)
  files.write_file(tmp_path / 'r.safetensors', plain, other)
  _, fresh = variables(smoke(), labels)
  _, found = variables(smoke(), labels, tmp_path / 'r.safetensors', 'backbone')
  for kind in ('params', 'batch_stats'):
    equal(found[kind]['backbone'], other[kind]['backbone'])
  equal(found['params']['head1'], fresh['params']['head1'])
  equal(found['params']['classifier'], fresh['params']['classifier'])


def finished_run(folder, labels, other):
  folder.mkdir()
  labels.save(folder / 'labels.json')
  with checkpoint.Best(folder) as best:
    best.offer(3, 0.5, other)


def test_another_run(labels, tmp_path):
  _, other = variables(smoke('mpm_clean'), labels)
  other = jax.tree.map(lambda x: x + 1, other)
  finished_run(tmp_path / 'run', labels, jax.device_put(other))
  _, found = variables(smoke(), labels, tmp_path / 'run')
  equal(found, other)


def test_the_backbone_of_a_run_of_another_model(labels, tmp_path):
  _, other = variables(smoke('resnet'), labels)
  finished_run(tmp_path / 'run', labels, jax.device_put(other))
  with pytest.raises(UserError, match='does not fit this model'):
    variables(smoke(), labels, tmp_path / 'run')
  _, found = variables(
    smoke('mpm', 'two_stage-smoke'), labels, tmp_path / 'run', 'backbone'
  )
  equal(found['params']['backbone'], other['params']['backbone'])


def test_a_torch_file_that_lacks_tensors(labels, tmp_path):
  model, other = variables(smoke(), labels)
  tensors = exporter.tensors(model, other)
  from safetensors.numpy import save_file

  missing = 'segmenter.layer1.0.conv1.weight'
  save_file(
    {k: v for k, v in tensors.items() if k != missing},
    tmp_path / 'short.safetensors',
  )
  with pytest.raises(UserError, match=missing):
    variables(smoke(), labels, tmp_path / 'short.safetensors')


def test_the_encoder_of_a_segmenter(labels, tmp_path):
  from safetensors.numpy import save_file

  small = smoke('segmenter')
  model, other = variables(small, labels)
  other = jax.tree.map(lambda x: x + 1, other)
  encoder = model.backbone()
  inner = {kind: value['backbone'] for kind, value in other.items()}
  path = tmp_path / 'encoder.safetensors'
  save_file(exporter.encoder_tensors(encoder, inner), path)
  _, found = variables(smoke('segmenter'), labels, path, 'backbone')
  _, fresh = variables(smoke('segmenter'), labels)
  for kind in ('params', 'batch_stats'):
    equal(found[kind]['backbone'], other[kind]['backbone'])
    equal(found[kind]['decoder'], fresh[kind]['decoder'])
  with pytest.raises(UserError, match='init.part=backbone'):
    variables(smoke('segmenter'), labels, path, 'all')


def test_nothing_to_segment_is_refused():
  empty = class_only(['n00000001', 'n00000002'])
  with pytest.raises(UserError, match='has no parts'):
    recipe.model(smoke('segmenter'), empty)
