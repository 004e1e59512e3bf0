"""The step: one compilation, any number of devices, no wasted work."""

import functools

import jax
from jax.sharding import AxisType
import numpy as np
import pytest

from pinpp_jax import (
  attacks,
  augment,
  models,
  objectives,
  optim,
  sharding,
  state,
  step,
)

CLASSES, PARTS, SIZE, BATCH = 5, 17, 64, 16


@functools.cache
def recipe(group=0, attack=None, frozen=()):
  tx, schedule = optim.make(
    {'name': 'sgd', 'learning_rate': 1.0, 'frozen': frozen}, 2, BATCH
  )
  return step.Recipe(
    model=models.MODELS['mpm'](
      num_classes=CLASSES,
      num_parts=PARTS,
      depth=10,
      width=8,
      batch_norm_group=group,
    ),
    objective=objectives.OBJECTIVES['parts'](),
    augment=augment.Augment(num_classes=CLASSES),
    attack=attack,
    attack_ramp=functools.partial(
      optim.attack_ramp, steps_per_epoch=2, warmup_epochs=1.0, by_epoch=False
    ),
    tx=tx,
    schedule=schedule,
    frozen=frozen,
    ema_decay=0.9,
  )


def pgd(**more):
  return attacks.ATTACKS['pgd'](eps=4 / 255, steps=2, step_size=4 / 255, **more)


def batch(seed=0):
  rng = np.random.default_rng(seed)
  parts = rng.integers(0, PARTS + 1, (BATCH, SIZE // 8, SIZE // 8), np.int32)
  parts[0] = 0  # a blank image
  return {
    'image': rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
    'label': rng.integers(0, CLASSES, BATCH, np.int32),
    'parts': parts,
    'source': rng.integers(0, 3, BATCH, np.int32),
    'id': rng.integers(0, 2**32, BATCH, np.uint32),
  }


def initial(recipe, mesh):
  make = functools.partial(state.initial_variables, recipe.model, SIZE)
  variables = jax.jit(make)(state.key(1))
  create = functools.partial(state.create, tx=recipe.tx)
  out = sharding.replicated(mesh)
  return jax.jit(create, out_shardings=out)(jax.device_put(variables, out))


def mesh(devices):
  return jax.make_mesh(
    (devices,), ('data',), (AxisType.Auto,), devices=jax.devices()[:devices]
  )


@functools.cache
def run(recipe, devices, steps=2):
  over = mesh(devices)
  current, values = initial(recipe, over), {}
  for i in range(steps):
    current, values = step.train_step(
      current, sharding.put(batch(i), over), jax.random.key(0), recipe=recipe
    )
  return jax.device_get((current, values))


def close(a, b, tolerance):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for (path, x), y in zip(
    jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True
  ):
    np.testing.assert_allclose(
      x, y, rtol=tolerance, atol=tolerance, err_msg=str(path)
    )


@pytest.mark.parametrize('group', [0, 4])
def test_one_and_eight_devices_agree(group):
  made = recipe(group)
  close(run(made, 1, steps=1), run(made, 8, steps=1), 1e-5)


def test_one_and_eight_devices_agree_under_attack():
  # The sign of a gradient near zero may turn with the order of a sum, so one
  # step is compared, by its metrics.
  made = recipe(0, pgd(best='example'))
  close(run(made, 1, steps=1)[1], run(made, 8, steps=1)[1], 1e-4)


def test_groups_change_the_statistics():
  whole, groups = run(recipe(0), 1, steps=1), run(recipe(4), 1, steps=1)
  assert abs(whole[1]['loss'] - groups[1]['loss']) > 1e-4


def test_the_step_compiles_once():
  made = recipe(0, pgd(best='batch'))
  before = step.train_step._cache_size()
  run(made, 8, steps=3)
  assert step.train_step._cache_size() == before + 1


def test_frozen_modules_keep_their_weights_and_move_their_statistics():
  made = recipe(frozen=('backbone',))
  before = jax.device_get(initial(made, mesh(1)))
  after, _ = run(made, 1, steps=1)
  close(before.params['backbone'], after.params['backbone'], 0)
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(),
    before.batch_stats['backbone'],
    after.batch_stats['backbone'],
  )
  assert max(jax.tree.leaves(moved)) > 1e-4
  assert (
    np.abs(
      before.params['classifier']['kernel']
      - after.params['classifier']['kernel']
    ).max()
    > 0
  )


def inner_jaxprs(params):
  """Yields the jaxprs among an equation's parameters."""
  for value in jax.tree.leaves(
    list(params.values()), is_leaf=lambda x: hasattr(x, 'eqns')
  ):
    jaxpr = getattr(value, 'jaxpr', value)
    if hasattr(jaxpr, 'eqns'):
      yield jaxpr


def equations(jaxpr):
  """Yields all equations of a jaxpr, those of inner ones included."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in inner_jaxprs(equation.params):
      yield from equations(inner)


def trace(function, *args):
  return list(equations(jax.make_jaxpr(function)(*args).jaxpr))


def test_the_step_builds_no_one_hot_over_parts():
  made = recipe()
  current = initial(made, mesh(1))
  take = functools.partial(step.train_step, recipe=made)
  found = trace(take, current, batch(), jax.random.key(0))
  wide = [
    equation
    for equation in found
    for out in equation.outvars
    if out.aval.shape[-1:] == (PARTS + 1,) and len(out.aval.shape) >= 2
  ]
  assert wide, 'the logits themselves have this width'
  assert not [e for e in wide if e.primitive.name in ('eq', 'iota')]


def contractions(found):
  names = ('conv_general_dilated', 'dot_general')
  return sum(equation.primitive.name in names for equation in found)


@pytest.mark.parametrize(('best', 'extra'), [('last', 0), ('example', 1)])
def test_the_attack_takes_no_weight_gradient(best, extra):
  made = recipe(attack=pgd(best=best))
  current = initial(made, mesh(1))
  numpy_batch = batch()
  ready = {
    'image': numpy_batch['image'] / np.float32(255),
    'label': numpy_batch['label'],
    'id': numpy_batch['id'],
  }

  def forward(image):
    return made.model.apply(current.variables, image, train=False)['logits']

  once = contractions(trace(forward, ready['image']))
  both = contractions(
    trace(jax.grad(lambda x: forward(x).sum()), ready['image'])
  )
  everything = contractions(
    trace(
      jax.grad(
        lambda variables, x: made.model.apply(variables, x, train=False)[
          'logits'
        ].sum(),
        argnums=(0, 1),
      ),
      current.variables,
      ready['image'],
    )
  )
  assert everything > both
  found = trace(
    lambda b: step.perturb(current, b, jax.random.key(0), made), ready
  )
  assert contractions(found) == 2 * both + extra * once
