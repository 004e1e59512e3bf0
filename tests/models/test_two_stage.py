"""The two-stage baseline."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax import models

tiny = functools.partial(
  models.TwoStage, num_classes=5, num_parts=6, depth=18, width=8
)


def test_parameter_count_is_the_references():
  model = models.TwoStage(num_classes=1000, num_parts=3310)
  init = functools.partial(model.init, train=False, parts=True)
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
  variables = jax.eval_shape(init, jax.random.key(0), image)
  leaves = jax.tree.leaves(variables['params'])
  assert sum(value.size for value in leaves) == 60_540_456


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_outputs(dtype):
  model = tiny(dtype=dtype)
  key = jax.random.key(0)
  image = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
  init = functools.partial(model.init, train=False, parts=True)
  variables = jax.eval_shape(init, key, image)
  apply = functools.partial(model.apply, train=False)
  assert set(jax.eval_shape(apply, variables, image)) == {'logits'}
  outputs = jax.eval_shape(
    functools.partial(apply, parts=True), variables, image
  )
  assert outputs['logits'].shape == (2, 5)
  assert outputs['logits'].dtype == jnp.float32
  assert [part.shape for part in outputs['parts']] == [(2, 7, 7, 7)]
  assert outputs['parts'][0].dtype == dtype


def test_the_class_depends_on_the_part_probabilities_alone(key, variables_of):
  """A constant added to all part logits changes no probability, no class."""
  model = tiny()
  image = jax.random.uniform(key, (2, 64, 64, 3))
  variables = variables_of(model)
  flat = variables['params']['head']['pointwise']['kernel']
  # The same vector for every part shifts all part logits of a cell alike.
  shift = jax.random.normal(key, flat.shape[:-1])[..., None]
  shifted = jax.tree.map(lambda x: x, variables)
  shifted['params']['head']['pointwise']['kernel'] = flat + jnp.broadcast_to(
    shift, flat.shape
  )
  apply = jax.jit(functools.partial(model.apply, train=False, parts=True))
  one, two = apply(variables, image), apply(shifted, image)
  assert not np.allclose(one['parts'][0], two['parts'][0], atol=1e-3)
  np.testing.assert_allclose(one['logits'], two['logits'], atol=1e-5)
