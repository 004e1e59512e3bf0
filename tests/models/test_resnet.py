"""Plain ResNets: sizes, and what the options change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax import models
from pinpp_jax.errors import UserError
from pinpp_jax.models import layers, resnet

IMAGE = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)

tiny = functools.partial(models.ResNet, num_classes=5, depth=18, width=4)


def abstract(model):
  init = functools.partial(model.init, train=False, parts=True)
  return jax.eval_shape(init, jax.random.key(0), IMAGE)


def classify(model, variables, image, **options):
  apply = functools.partial(model.apply, train=False, **options)
  return jax.jit(apply)(variables, image)


@pytest.mark.parametrize(
  'depth, wide, expected',
  [
    (18, 1, 11_689_512),
    (34, 1, 21_797_672),
    (50, 1, 25_557_032),
    (101, 1, 44_549_160),
    (152, 1, 60_192_808),
    (50, 2, 68_883_240),
    (101, 2, 126_886_696),
  ],
)
def test_parameter_counts_are_torchvisions(depth, wide, expected):
  model = models.ResNet(num_classes=1000, depth=depth, wide=wide)
  leaves = jax.tree.leaves(abstract(model)['params'])
  assert sum(value.size for value in leaves) == expected


def test_parts_change_nothing(key, variables_of):
  image = jax.random.uniform(key, IMAGE.shape)
  model = tiny()
  variables = variables_of(model)
  plain = classify(model, variables, image)
  asked = classify(model, variables, image, parts=True)
  assert set(plain) == set(asked) == {'logits'}
  np.testing.assert_array_equal(plain['logits'], asked['logits'])


def test_residual_branches_start_as_the_identity(key):
  block = resnet.Block(
    features=4,
    inner=4,
    bottleneck=False,
    stride=1,
    project=False,
    act=jax.nn.relu,
    conv=layers.Conv,
    norm=functools.partial(layers.BatchNorm, train=False),
  )
  image = jax.random.uniform(key, (1, 4, 4, 4))
  variables = block.init(key, image)
  np.testing.assert_array_equal(block.apply(variables, image), image)
  assert (variables['params']['bn1']['scale'] == 1).all()


def test_remat_changes_no_name():
  model = tiny()
  again = model.clone(remat=True)
  assert abstract(model) == abstract(again)

  def primitives(model):
    apply = functools.partial(model.apply, train=False)
    jaxpr = jax.make_jaxpr(apply)(abstract(model), IMAGE)
    return [equation.primitive.name for equation in jaxpr.eqns]

  # jax has called this primitive by either name.
  remat = {'checkpoint', 'remat2'}
  assert sum(name in remat for name in primitives(again)) == 8
  assert not remat & set(primitives(model))


def test_bfloat16_is_close_and_keeps_float32_logits(key, variables_of):
  image = jax.random.uniform(key, (2, 32, 32, 3))
  model = tiny(width=16)
  variables = variables_of(model)
  exact = classify(model, variables, image)['logits']
  rough = classify(model.clone(dtype='bfloat16'), variables, image)
  assert rough['logits'].dtype == jnp.float32
  scale = abs(exact).max()
  np.testing.assert_allclose(rough['logits'], exact, atol=0.03 * scale)


@pytest.mark.parametrize(
  'fields, word',
  [
    (dict(depth=20), 'depth=20'),
    (dict(wide=2), 'wide=2'),
    (dict(activation='tanh'), 'tanh'),
  ],
)
def test_unknown_networks_are_refused(fields, word):
  with pytest.raises(UserError, match=word):
    abstract(models.ResNet(**dict(num_classes=5, depth=18) | fields))
