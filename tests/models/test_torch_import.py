"""Names, layouts and the refusal of anything that does not fit."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax import models
from pinpp_jax.errors import UserError
from pinpp_jax.models.torch import exporter, importer, names

TINY = dict(num_classes=5, num_parts=6, depth=18, width=4)
EVERY = [
  models.ResNet(**TINY),
  models.ResNet(**dict(TINY, depth=50)),
  models.MPM(**TINY),
  models.MPM(**TINY, level=2),
  models.MPM(**TINY, level=1, top_down=False),
  models.TwoStage(**TINY),
]


def tensors_of(model):
  """Returns random tensors that fit `model`."""
  rng = np.random.default_rng(0)
  return {
    name: rng.normal(size=entry.shape).astype(np.float32)
    for name, entry in names.entries(model).items()
  }


@pytest.mark.parametrize(
  'file, model',
  [
    ('mpm', models.MPM(num_classes=1000, num_parts=3310)),
    ('twostage', models.TwoStage(num_classes=1000, num_parts=3310)),
  ],
)
def test_names_and_shapes_are_the_references(golden, file, model):
  listed = json.loads((golden / f'{file}_state_dict.json').read_text())
  if isinstance(listed, dict):
    listed = listed['tensors']
  expected = {t['key']: tuple(t['shape']) for t in listed}
  init = functools.partial(model.init, train=False, parts=True)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  variables = jax.tree.map(
    # A view of one zero: nothing of the real size is made here.
    lambda leaf: np.broadcast_to(np.float32(0), leaf.shape),
    jax.eval_shape(init, jax.random.key(0), image),
  )
  tensors = exporter.tensors(model, variables)
  assert {k: v.shape for k, v in tensors.items()} == expected
  counters = [v for k, v in tensors.items() if k.endswith('batches_tracked')]
  assert all(v.dtype == np.int64 and not v for v in counters)


@pytest.mark.parametrize('model', EVERY, ids=lambda m: type(m).__name__)
def test_import_and_export_are_inverse(model):
  tensors = tensors_of(model)
  variables = importer.variables(model, tensors)
  init = functools.partial(model.init, train=False, parts=True)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  expected = jax.eval_shape(init, jax.random.key(0), image)
  shape = lambda leaf: (leaf.shape, leaf.dtype)
  assert jax.tree.map(shape, variables) == jax.tree.map(shape, expected)
  back = exporter.tensors(model, variables)
  for name, value in tensors.items():
    np.testing.assert_array_equal(back.pop(name), value)
  assert all(name.endswith('num_batches_tracked') for name in back)


def test_wrappers_and_counters_are_ignored():
  model = models.ResNet(**TINY)
  tensors = tensors_of(model)
  wrapped = {f'module.{k}': v for k, v in tensors.items()}
  wrapped['module.bn1.num_batches_tracked'] = np.int64(3)
  jax.tree.map(
    np.testing.assert_array_equal,
    importer.variables(model, wrapped),
    importer.variables(model, tensors),
  )


def test_what_does_not_fit_is_named():
  model = models.ResNet(**TINY)
  tensors = tensors_of(model)
  del tensors['layer1.0.conv1.weight']
  tensors['head.extra'] = np.zeros((2, 3), np.float32)
  tensors['fc.weight'] = np.zeros((7, 32), np.float32)
  with pytest.raises(UserError) as error:
    importer.variables(model, tensors)
  message = str(error.value)
  assert '\n' not in message
  assert 'missing from the file: layer1.0.conv1.weight (4, 4, 3, 3)' in message
  assert 'left over in the file: head.extra (2, 3)' in message
  assert 'wrong shape: fc.weight (7, 32), expected (5, 32)' in message


def test_heads_of_other_levels_are_dropped_and_nothing_else():
  whole = tensors_of(models.MPM(**TINY))
  small = models.MPM(**TINY, level=1)
  assert {name.split('.')[0] for name in importer.unused(small)} == {
    'cp2',
    'cp3',
    'segmenter_head2',
    'segmenter_head3',
    'up_layer1',
    'up_layer2',
  }
  importer.variables(small, whole)
  with pytest.raises(UserError, match='left over in the file: cp4'):
    importer.variables(small, whole | {'cp4.0.weight': np.zeros(1)})
  assert not importer.unused(models.MPM(**TINY))


def test_backbone_from_a_plain_resnet():
  plain = tensors_of(models.ResNet(**TINY))
  model = models.MPM(**TINY)
  variables = importer.backbone_variables(model, plain)
  assert set(variables['params']) == {'backbone'}
  whole = importer.variables(
    model,
    tensors_of(model)
    | {
      f'segmenter.{name}': value
      for name, value in plain.items()
      if not name.startswith('fc.')
    },
  )
  for collection in ('params', 'batch_stats'):
    jax.tree.map(
      np.testing.assert_array_equal,
      variables[collection]['backbone'],
      whole[collection]['backbone'],
    )
  both = importer.backbone_variables(model, plain, classifier=True)
  kernel = both['params']['classifier']['kernel']
  np.testing.assert_array_equal(kernel, plain['fc.weight'].T)
  with pytest.raises(UserError, match='TwoStage'):
    importer.backbone_variables(models.TwoStage(**TINY), plain, classifier=True)


def test_backbone_of_another_depth_is_refused():
  plain = tensors_of(models.ResNet(**dict(TINY, depth=34)))
  with pytest.raises(UserError, match=r'left over in the file: layer1\.2'):
    importer.backbone_variables(models.MPM(**TINY), plain)
