import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pinpp_jax import optim
from pinpp_jax.errors import UserError

SGD = {'name': 'sgd', 'epochs': 80}


def params():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  return {
    'backbone': {
      'conv': {'kernel': draw(3, 3, 1, 4)},  # depthwise
      'norm': {'scale': draw(4), 'bias': draw(4)},
    },
    'head': {'kernel': draw(4, 2), 'bias': draw(2)},
  }


def gradients(seed):
  key = jax.random.key(seed)
  return jax.tree.map(
    lambda x: jax.random.normal(jax.random.fold_in(key, x.size), x.shape),
    params(),
  )


def walk(tx, steps):
  value, state = params(), tx.init(params())
  update = jax.jit(tx.update)
  for i in range(steps):
    updates, state = update(gradients(i), state, value)
    value = optax.apply_updates(value, updates)
  return value


def test_updates_equal_torch_sgd_by_its_formula():
  """buf = g at first, then m buf + g; the step is lr (g + m buf)."""
  tx, schedule = optim.make(SGD | {'weight_decay': 0.1}, 10, 512)
  mine = walk(tx, 4)
  value = jax.tree.map(lambda x: np.asarray(x, np.float64), params())
  buffer = None
  for i in range(4):
    g = jax.tree.map(
      lambda d, x: d + 0.1 * x if x.ndim >= 2 else d + 0 * x,
      gradients(i),
      value,
    )
    if buffer is None:
      buffer = g
    else:
      buffer = jax.tree.map(lambda b, g: 0.9 * b + g, buffer, g)
    rate = float(schedule(i))
    step = jax.tree.map(lambda b, g: g + 0.9 * b, buffer, g)
    value = optax.apply_updates(value, optax.tree.scale(-rate, step))
  for x, y in zip(jax.tree.leaves(mine), jax.tree.leaves(value), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_cosine_counts_from_the_start_and_ends_at_the_floor():
  _, schedule = optim.make(SGD, 100, 512)
  u = np.arange(0, 8200, 7)
  expected = np.where(
    u < 200,
    1e-3 + u * (0.2 - 1e-3) / 200,
    0.01 + 0.095 * (1 + np.cos(np.pi * np.minimum(u, 8000) / 8000)),
  )
  np.testing.assert_allclose(jax.vmap(schedule)(u), expected, rtol=1e-5)


def test_steps_divide_the_peak():
  _, schedule = optim.make(SGD | {'schedule': 'step'}, 100, 512)
  rates = [schedule(u) for u in (200, 499, 500, 1000)]
  np.testing.assert_allclose(rates, [0.2, 0.2, 0.02, 0.002], rtol=1e-5)


def test_only_the_peak_scales_with_the_batch():
  _, schedule = optim.make(SGD | {'schedule': 'constant'}, 10, 64)
  np.testing.assert_allclose(schedule(0), 1e-3, rtol=1e-6)
  np.testing.assert_allclose(schedule(100), 0.2 / 8, rtol=1e-6)


def test_a_warmup_longer_than_the_run_is_refused_or_cut():
  section = SGD | {'epochs': 1, 'schedule': 'constant'}
  with pytest.raises(UserError, match='truncate_warmup'):
    optim.make(section, 10, 512)
  _, schedule = optim.make(section | {'truncate_warmup': True}, 100, 512)
  np.testing.assert_allclose(schedule(100), 0.1005, rtol=1e-5)


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_frozen_parameters_do_not_move(name):
  section = {'name': name, 'frozen': ['backbone/conv', 'head']}
  tx, _ = optim.make(section, 10, 512)
  moved = walk(tx, 2)
  start = params()
  np.testing.assert_array_equal(
    moved['backbone']['conv']['kernel'], start['backbone']['conv']['kernel']
  )
  np.testing.assert_array_equal(moved['head']['bias'], start['head']['bias'])
  before, after = (p['backbone']['norm']['scale'] for p in (start, moved))
  assert (before != after).all()
  # Nor do they have momentum.
  sizes = [x.size for x in jax.tree.leaves(tx.init(start))]
  assert sum(s for s in sizes if s > 1) == 8 * (2 if name == 'adamw' else 1)


def test_frozen_gradients_are_not_computed():
  value = params()
  loss = lambda p: sum(
    jnp.sum(x**2) for x in jax.tree.leaves(optim.stop_frozen(p, ('backbone',)))
  )
  g = jax.grad(loss)(value)
  assert all((x == 0).all() for x in jax.tree.leaves(g['backbone']))
  assert (g['head']['kernel'] != 0).all()


def test_a_frozen_path_without_parameters_is_refused():
  tx, _ = optim.make(SGD | {'frozen': ('back',)}, 10, 512)
  with pytest.raises(UserError, match='back'):
    tx.init(params())


@pytest.mark.parametrize(
  'wrong', [{'schedule': 'poly'}, {'lr': 1.0}, {'name': 'lion'}]
)
def test_unknown_fields_are_refused(wrong):
  with pytest.raises(UserError):
    optim.make(SGD | wrong, 10, 512)


def test_ema_covers_every_leaf():
  ema, new = (
    {'params': jnp.ones(3), 'batch_stats': jnp.ones(2)},
    {
      'params': jnp.zeros(3),
      'batch_stats': jnp.zeros(2),
    },
  )
  after = optim.update_ema(ema, new, 0.9)
  assert all(np.allclose(x, 0.9) for x in jax.tree.leaves(after))


def test_attack_ramp():
  steps = np.arange(0, 400)
  ramp = jax.vmap(lambda s: optim.attack_ramp(s, 100, 2))(steps)
  np.testing.assert_allclose(ramp, np.minimum((steps + 1) / 200, 1), rtol=1e-6)
  by_epoch = lambda s: optim.attack_ramp(s, 100, 2, by_epoch=True)
  assert [by_epoch(s) for s in (0, 99, 100, 399)] == [0, 0, 0.5, 1]
  assert optim.attack_ramp(0, 100, 0) == 1


def test_position_embeddings_do_not_decay():
  params = {
    'vit': {
      'pos_embed': np.zeros((1, 5, 4)),
      'cls_token': np.zeros((1, 1, 4)),
      'proj': {'kernel': np.zeros((4, 4)), 'bias': np.zeros(4)},
    }
  }
  assert optim.decay_mask(params) == {
    'vit': {
      'pos_embed': False,
      'cls_token': False,
      'proj': {'kernel': True, 'bias': False},
    }
  }
