"""MPM against numbers recorded from the reference, and its own promises."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax import models
from pinpp_jax.errors import UserError
from pinpp_jax.models.torch import exporter, importer, names

IMAGE = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)

# A network that compiles quickly.
tiny = functools.partial(
  models.MPM, num_classes=5, num_parts=6, depth=18, width=4
)


def abstract(model):
  """Returns shapes and dtypes of the variables of `model`."""
  init = functools.partial(model.init, train=False, parts=True)
  return jax.eval_shape(init, jax.random.key(0), IMAGE)


def count(tree):
  return sum(value.size for value in jax.tree.leaves(tree))


def close(actual, expected, tolerance=2e-5):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


@pytest.fixture(scope='module')
def fill(golden):
  """The rule that fills a network from its names."""
  spec = importlib.util.spec_from_file_location('fill', golden / 'fill.py')
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='module')
def filled(fill):
  """MPM with a ResNet-50 and the recorded weights."""
  model = models.MPM(num_classes=10, num_parts=40)
  tensors = {
    name: fill.fill_array(name, entry.shape)
    for name, entry in names.entries(model).items()
  }
  return model, importer.variables(model, tensors)


@pytest.fixture(scope='module')
def recorded(golden: pathlib.Path):
  with np.load(golden / 'mpm_l3_down.npz') as numbers:
    return {k: numbers[k] for k in numbers if k.startswith('f32/b4_s96/')}


def test_evaluation_is_the_reference(fill, filled, recorded):
  model, variables = filled
  image = fill.image01(4, 96).transpose(0, 2, 3, 1)
  apply = jax.jit(functools.partial(model.apply, train=False, parts=True))
  outputs = apply(variables, image)
  close(outputs['logits'], recorded['f32/b4_s96/eval_logits'])
  for i, part in enumerate(outputs['parts']):
    expected = recorded[f'f32/b4_s96/eval_seg{i}']
    close(part, expected.transpose(0, 2, 3, 1))


def test_training_forward_is_the_reference(fill, filled, recorded):
  model, variables = filled
  image = fill.image01(4, 96).transpose(0, 2, 3, 1)
  apply = functools.partial(
    model.apply, train=True, parts=True, mutable=['batch_stats']
  )
  outputs, update = jax.jit(apply)(variables, image)
  close(outputs['logits'], recorded['f32/b4_s96/train_logits'])
  for i, part in enumerate(outputs['parts']):
    flat = np.asarray(part).transpose(0, 3, 1, 2).reshape(-1)[::97]
    close(flat, recorded[f'f32/b4_s96/train_seg{i}_flat_stride97'])
  tensors = exporter.tensors(model, variables | update)
  for name, expected in zip(
    recorded['f32/b4_s96/bn_after_keys'],
    recorded['f32/b4_s96/bn_after_first16'],
    strict=True,
  ):
    np.testing.assert_allclose(tensors[name][:16], expected, atol=2e-5)


def test_parameter_count_is_the_references():
  model = models.MPM(num_classes=1000, num_parts=3310)
  assert count(abstract(model)['params']) == 30_080_552


@pytest.mark.parametrize('level', [1, 2, 3])
@pytest.mark.parametrize('top_down', [False, True])
def test_only_used_layers_are_built(level, top_down):
  model = tiny(level=level, top_down=top_down)
  built = set(abstract(model)['params']) - {'backbone', 'classifier'}
  expected = {f'head{i}' for i in range(1, level + 1)}
  expected |= {f'compact{i}_conv' for i in range(1, level + 1)}
  expected |= {f'compact{i}_bn' for i in range(1, level + 1)}
  if top_down:
    expected |= {f'up{i}' for i in range(1, level)}
  assert built == expected
  apply = functools.partial(model.apply, train=False, parts=True)
  outputs = jax.eval_shape(apply, abstract(model), IMAGE)
  shapes = [part.shape for part in outputs['parts']]
  assert shapes == [(2, n, n, 7) for n in (8, 4, 2)[3 - level :]]


def _products(model, **options) -> int:
  """Returns how many convolutions and matrix products a call computes."""
  apply = functools.partial(model.apply, **options)
  text = str(jax.make_jaxpr(apply)(abstract(model), IMAGE))
  return text.count('conv_general_dilated[') + text.count('dot_general[')


def test_inference_computes_no_bypass():
  model = tiny()
  plain = models.ResNet(num_classes=5, depth=18, width=4, activation='gelu')
  assert _products(model, train=False) == _products(plain, train=False)
  more = _products(model, train=False, parts=True)
  assert more > _products(model, train=False)


def test_training_without_parts_leaves_the_bypass_alone(key, variables_of):
  model = tiny()
  image = jax.random.uniform(key, IMAGE.shape)
  variables = variables_of(model)
  changed = {}
  for parts in (False, True):
    apply = functools.partial(
      model.apply, train=True, parts=parts, mutable=['batch_stats']
    )
    _, update = jax.jit(apply)(variables, image)
    changed[parts] = {
      name
      for name, old in variables['batch_stats'].items()
      if not jax.tree.all(
        jax.tree.map(np.array_equal, old, update['batch_stats'][name])
      )
    }
  assert changed[False] == {'backbone'}
  compact = {f'compact{i}_bn' for i in (1, 2, 3)}
  assert changed[True] == {'backbone'} | compact


@pytest.mark.parametrize(
  'dtype, parts_dtype', [('float32', 'float32'), ('bfloat16', 'bfloat16')]
)
def test_dtypes(dtype, parts_dtype):
  model = tiny(dtype=dtype)
  apply = functools.partial(
    model.apply, train=True, parts=True, mutable=['batch_stats']
  )
  outputs, update = jax.eval_shape(apply, abstract(model), IMAGE)
  assert outputs['logits'].dtype == jnp.float32
  assert {part.dtype.name for part in outputs['parts']} == {parts_dtype}
  for tree in (abstract(model), update):
    assert {v.dtype.name for v in jax.tree.leaves(tree)} == {'float32'}


def test_level_is_checked():
  with pytest.raises(UserError, match='level=4'):
    abstract(tiny(level=4))
