import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from pinpp_jax.attacks import (
  ATTACKS,
  apgd,
  apgd_dense,
  apgd_l1,
  loops,
  losses,
  pgd,
  projections,
)
from pinpp_jax.attacks.apgd import APGD
from pinpp_jax.errors import UserError

B, S, K = 7, 4, 6
EPS = {'linf': 0.012, 'l2': 0.06, 'l1': 0.25}


@pytest.fixture
def predict(recorded):
  return recorded.network('mlp')


@pytest.fixture
def inputs(recorded):
  keys = jax.random.split(jax.random.key(0), B)
  image, label = recorded.images('mlp')
  return keys, image[:B], label[:B]


def distance(norm, x, image):
  delta = np.abs(np.asarray(x, np.float64) - np.asarray(image)).reshape(B, -1)
  if norm == 'linf':
    return delta.max(1)
  return delta.sum(1) if norm == 'l1' else np.sqrt((delta**2).sum(1))


@pytest.mark.parametrize('norm', EPS)
def test_host_and_scan_agree_in_ball_and_box(norm, inputs, predict):
  keys, image, label = inputs
  attack = APGD(eps=4 * EPS[norm], norm=norm, steps=6, loop='host')
  x = attack(keys, predict, image, label)
  assert x.dtype == image.dtype and (x >= 0).all() and (x <= 1).all()
  far = distance(norm, x, image)
  assert (far <= attack.eps * (1 + 1e-5)).all() and far.max() > 0
  scan = dataclasses.replace(attack, loop='scan')
  np.testing.assert_allclose(scan(keys, predict, image, label), x, atol=1e-6)
  inside = jax.jit(lambda *a: dataclasses.replace(attack, loop='auto')(
    a[0], predict, *a[1:]))  # fmt: skip
  np.testing.assert_allclose(inside(keys, image, label), x, atol=1e-6)


@pytest.mark.parametrize('norm', EPS)
def test_neighbours_and_order_do_not_matter(norm, inputs, predict):
  attack = APGD(eps=4 * EPS[norm], norm=norm, steps=6)
  keys, image, label = inputs
  together = attack(keys, predict, image, label)
  order = np.array([3, 0, 6, 5, 1, 2, 4])
  other = attack(keys[order], predict, image[order], label[order])
  np.testing.assert_allclose(other, together[order], atol=1e-6)
  for i in (0, 4):
    one = slice(i, i + 1)
    alone = attack(keys[one], predict, image[one], label[one])
    np.testing.assert_allclose(alone, together[one], atol=1e-6)


def test_a_second_call_compiles_nothing(inputs, predict):
  keys, image, label = inputs
  attack = APGD(eps=0.01, steps=3, loss='targeted_dlr', target_classes=2)
  attack(keys, predict, image, label)
  before = loops._stage._cache_size()
  attack(keys, predict, image + 0, jax.nn.one_hot(label, K))
  assert loops._stage._cache_size() == before


def test_rounds_do_the_same_alone(inputs, predict):
  keys, image, label = inputs
  attack = APGD(eps=0.01, steps=5, loss='targeted_dlr', target_classes=3)
  x = attack(keys, predict, image, label)
  # An image keeps what the first round found that broke it.
  joined = image
  for i in range(attack.rounds):
    one = attack(keys, predict, image, label, rounds=range(i, i + 1))
    untouched = (joined == image).all((1, 2, 3), keepdims=True)
    joined = jnp.where(untouched, one, joined)
  np.testing.assert_array_equal(joined, x)
  assert (x != image).any() and (x == image).all((1, 2, 3)).any()


@pytest.mark.parametrize('norm', EPS)
def test_a_ball_of_radius_zero_is_the_image(norm, inputs, predict):
  keys, image, label = inputs
  x = APGD(eps=0.0, norm=norm, steps=5)(keys, predict, image, label)
  np.testing.assert_array_equal(x, image)


@pytest.mark.parametrize('loss', apgd.LOSSES)
def test_what_is_wrong_stays_wrong(loss, inputs, predict):
  keys, image, label = inputs
  label = (jnp.argmax(predict(image), -1) + 1) % K
  attack = APGD(eps=0.05, steps=8, loss=loss, target_classes=2)
  x = attack(keys, predict, image, label)
  assert (jnp.argmax(predict(x), -1) != label).all()
  # A ranking shows it; without, images are attacked like others.
  assert (x == image).all() == (loss == 'targeted_dlr')
  assert (distance('linf', x, image) <= 0.05 + 1e-6).all()


def test_breaks_no_fewer_than_pgd(recorded, predict):
  image, label = recorded.images('mlp')
  keys = jax.random.split(jax.random.key(1), len(image))
  right = lambda x: np.mean(np.argmax(predict(x), -1) == label)
  plain = pgd.PGD(eps=0.02, step_size=0.005, steps=20)
  ours = APGD(eps=0.02, steps=20, restarts=2)
  weak = right(jax.jit(plain, static_argnums=1)(keys, predict, image, label))
  assert right(ours(keys, predict, image, label)) <= weak < right(image)


def test_gradients_go_to_the_image_only(inputs):
  keys, image, label = inputs
  weights = jnp.ones((S * S * 3, K))

  def attacked(weights, image):
    network = lambda x: x.reshape(len(x), -1) @ weights
    return APGD(eps=0.1, steps=5)(keys, network, image, label)

  text = str(jax.make_jaxpr(attacked)(weights, image))
  assert text.count('dot_general') == 2  # forward, to the image


def test_averages_over_a_random_network(inputs, predict):
  keys, image, label = inputs

  def noisy(x, keys):
    draw = lambda key: jax.random.normal(key, x.shape[1:]) * 0.01
    return predict(x + jax.vmap(draw)(keys))

  attack = APGD(eps=0.05, steps=3, eot=3)
  x = attack(keys, noisy, image, label)
  np.testing.assert_array_equal(x, attack(keys, noisy, image, label))
  assert (distance('linf', x, image) <= 0.05 + 1e-6).all()


def test_l1_projection_is_the_nearest_point():
  rng = np.random.default_rng(0)
  image = rng.random((20, 2, 3, 2)).astype(np.float32)
  x = (image + rng.normal(size=image.shape)).astype(np.float32)
  for eps in (0.1, 1.0, 2.5, 100.0):
    found = np.asarray(projections.l1(jnp.asarray(x), jnp.asarray(image), eps))
    for i in range(len(x)):
      delta = (x[i] - image[i]).astype(np.float64)
      room = np.where(delta > 0, 1 - image[i], image[i])
      cut = lambda t, d=delta, r=room: np.clip(np.abs(d) - t, 0, r)
      excess = lambda t, cut=cut, eps=eps: cut(t).sum() - eps
      high = np.abs(delta).max()
      t = optimize.brentq(excess, 0, high, xtol=1e-14) if excess(0) > 0 else 0
      expected = image[i] + np.sign(delta) * cut(t)
      np.testing.assert_allclose(found[i], expected, atol=2e-6)
    again = projections.l1(jnp.asarray(found), jnp.asarray(image), eps)
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_order_statistic_is_the_sorted_one():
  value = np.abs(np.random.default_rng(0).normal(size=(6, 50))).astype('f4')
  value[0], value[1, :20] = 0, 0
  rank = np.array([3, 10, 20, 0, 49, 7])
  found = apgd_l1.order_statistic(jnp.asarray(value), jnp.asarray(rank))
  np.testing.assert_array_equal(found, np.sort(value)[np.arange(6), rank])


def test_dlr_is_as_defined():
  rng = np.random.default_rng(0)
  z, y = rng.normal(size=(30, K)).astype('f4'), np.arange(30) % K
  t, rows, s = (y + 1) % K, np.arange(30), -np.sort(-z)
  others = np.where(np.arange(K) == y[:, None], -np.inf, z).max(1)
  np.testing.assert_allclose(
    losses.dlr(jnp.asarray(z), jnp.asarray(y)),
    (others - z[rows, y]) / (s[:, 0] - s[:, 2]), rtol=1e-5,
  )  # fmt: skip
  np.testing.assert_allclose(
    losses.targeted_dlr(jnp.asarray(z), jnp.asarray(y), jnp.asarray(t)),
    (z[rows, t] - z[rows, y]) / (s[:, 0] - (s[:, 2] + s[:, 3]) / 2), rtol=1e-5,
  )  # fmt: skip


def test_ranks_are_those_of_two_divisions():
  """XLA divides once, by the product, or multiplies: other ranks."""
  image = jnp.zeros((1, S, S, 3))
  size = image.size
  counts = np.arange(size + 1, dtype=np.float32)
  share = counts / np.float32(size) / np.float32(1.5)
  expected = ((1 - share) * np.float32(size)).astype(int).clip(0, size - 1)
  ranks = jax.jit(lambda count: apgd_l1.least_rank(count, image))
  np.testing.assert_array_equal(ranks(counts), expected)


def test_checkpoints_are_the_published_ones():
  windows = apgd_dense.Dense('linf', 0.75).windows(100)
  marks = {i: k for i, k in enumerate(windows) if k}
  assert marks == {
    21: 22, 40: 19, 56: 16, 69: 13, 79: 10, 86: 7, 92: 6, 98: 6
  }  # fmt: skip
  assert apgd_l1.Sparse().phases(100) == [(3.0, 30), (2.0, 30), (1.0, 40)]
  assert APGD(eps=1.0, norm='l1').length == 103


def test_wrong_options_are_refused(inputs, predict):
  for wrong in ({'norm': 'l3'}, {'loss': 'mse'}, {'loop': 'for'}):
    with pytest.raises(UserError, match='not one of'):
      ATTACKS['apgd'](eps=0.1, **wrong)
  with pytest.raises(UserError, match='below 1'):
    APGD(eps=0.1, steps=0)
  with pytest.raises(UserError, match='the three radii'):
    APGD(eps=0.1, steps=4, norm='l1')
  keys, image, label = inputs
  with pytest.raises(UserError, match='too many'):
    APGD(eps=0.1, loss='targeted_dlr')(keys, predict, image, label)
  with pytest.raises(UserError, match='at least 3 classes'):
    losses.dlr(jnp.zeros((2, 2)), jnp.zeros(2, int))
