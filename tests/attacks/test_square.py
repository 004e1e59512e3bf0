import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.attacks import ATTACKS, square
from pinpp_jax.attacks.loops import Inputs
from pinpp_jax.attacks.square import Square
from pinpp_jax.errors import UserError

B, S, K = 7, 10, 4
EPS = {'linf': 0.12, 'l2': 1.2, 'l1': 6.0}
NORMS = square.NORMS
WRONG = 2  # the example that is misclassified from the start

W1 = np.random.default_rng(1).normal(size=(S * S * 3, 16)).astype(np.float32)
W2 = np.random.default_rng(2).normal(size=(16, K)).astype(np.float32)


@jax.custom_jvp
def opaque(x):
  return x


@opaque.defjvp
def _no_gradient(primals, tangents):
  raise AssertionError('Square asked for a gradient.')


def predict(x):
  return jnp.tanh((opaque(x).reshape(len(x), -1) - 0.5) @ W1 / 3) @ W2


@pytest.fixture
def image():
  x = np.random.default_rng(0).random((B, S, S, 3)).astype(np.float32)
  x[0, :2] = 0  # the box binds
  x[1, :2] = 1
  return jnp.asarray(x)


@pytest.fixture
def label(image):
  own = jnp.argmax(predict(image), -1)
  return own.at[WRONG].set((own[WRONG] + 1) % K)


@pytest.fixture
def keys():
  return jax.random.split(jax.random.key(0), B)


def lengths(norm, delta):
  delta = np.abs(np.asarray(delta, np.float64)).reshape(len(delta), -1)
  if norm == 'linf':
    return delta.max(1)
  return delta.sum(1) if norm == 'l1' else np.sqrt((delta**2).sum(1))


@pytest.mark.parametrize('norm', NORMS)
def test_stays_in_ball_and_box_whatever_the_loop(norm, image, label, keys):
  attack = Square(eps=EPS[norm], norm=norm, queries=60, loop='host')
  x = attack(keys, predict, image, label)
  assert x.shape == image.shape and x.dtype == image.dtype
  assert (x >= 0).all() and (x <= 1).all()
  far = lengths(norm, x - image)
  assert (far <= EPS[norm] * (1 + 1e-5)).all()
  # What changed is misclassified; what resists did not change.
  fooled = np.asarray(jnp.argmax(predict(x), -1) != label)
  np.testing.assert_array_equal((far > 0) | (np.arange(B) == WRONG), fooled)
  assert (far > 0).sum() >= 3
  scan = dataclasses.replace(attack, loop='scan')
  outer = jax.jit(lambda keys, *a: scan(keys, predict, *a))
  np.testing.assert_allclose(outer(keys, image, label), x, atol=1e-5)


@pytest.mark.parametrize('norm', ['linf', 'l1'])
def test_margins_only_fall_inside_the_ball(norm, image, label, keys):
  attack = Square(eps=EPS[norm] / 2, norm=norm)
  inputs = Inputs(keys, predict, image, label)
  step = jax.jit(lambda i, carry: attack.step(i, carry, inputs))
  carry = attack.start(0, attack.prepare(inputs), inputs)
  moved = 0
  for i in range(25):
    active = attack.active(carry)
    following = step(i, carry)
    x, margin = following[:2]
    assert (margin <= carry[1]).all()
    same = (x == carry[0]).all((1, 2, 3))
    # Kept exactly where the margin falls; broken images stay as they are.
    np.testing.assert_array_equal(same, margin == carry[1])
    assert same[~active].all()
    logits = np.array(predict(x))
    own = logits[np.arange(B), label]
    logits[np.arange(B), label] = -np.inf
    np.testing.assert_allclose(margin, own - logits.max(1), atol=1e-4)
    assert (lengths(norm, x - image) <= attack.eps * (1 + 1e-5)).all()
    assert (x >= 0).all() and (x <= 1).all()
    moved, carry = moved + (~same).sum(), following
  assert moved > 10


@pytest.mark.parametrize('norm', ['linf', 'l1'])
def test_neighbours_do_not_matter(norm, image, label, keys):
  attack = Square(eps=EPS[norm], norm=norm, queries=30, restarts=2)
  together = attack(keys, predict, image, label)
  order = jnp.asarray([3, 0, 6, 2, 5, 1, 4])
  permuted = attack(keys[order], predict, image[order], label[order])
  np.testing.assert_allclose(permuted, together[order], atol=1e-5)
  for i in range(B):
    one = slice(i, i + 1)
    alone = attack(keys[one], predict, image[one], label[one])
    np.testing.assert_allclose(alone, together[one], atol=1e-5)


def test_restarts_find_more(image, label, keys):
  once = Square(eps=0.08, queries=10)
  found = []
  for attack in (once, dataclasses.replace(once, restarts=6)):
    x = attack(keys, predict, image, label)
    found.append(np.asarray((x != image).any((1, 2, 3))))
  assert (found[1] >= found[0]).all() and found[1].sum() > found[0].sum()


@pytest.mark.parametrize('norm', NORMS)
def test_nothing_is_found_in_an_empty_ball(norm, image, label, keys):
  x = Square(eps=0.0, norm=norm, queries=2)(keys, predict, image, label)
  np.testing.assert_array_equal(x, image)


@pytest.mark.parametrize('loop', ['host', 'scan'])
def test_queries_and_compilations_are_counted(loop, image, label, keys):
  queries, traces = [], []

  def counted(x):
    traces.append(x.shape)
    jax.debug.callback(lambda: queries.append(1))
    return predict(x)

  # Robust to the last: one query for the start.
  attack = Square(eps=1e-6, queries=40, loop=loop)
  attack(keys, counted, image, label).block_until_ready()
  jax.effects_barrier()
  assert len(queries) == 41
  before = len(traces)
  Square(eps=1e-6, queries=40, loop=loop)(keys[::-1], counted, image + 0, label)
  assert len(traces) == before
  # Misclassified at the start: no proposal is made, and it stays so.
  jax.effects_barrier()
  queries.clear()
  wrong = (jnp.argmax(predict(image), -1) + 1) % K
  x = attack(keys, counted, image, wrong)
  jax.effects_barrier()
  assert (jnp.argmax(predict(x), -1) != wrong).all()
  assert len(queries) == 1


def test_windows_shrink_as_in_the_paper():
  """Sides at 224 pixels, of robustness.md's table."""
  last = [10, 50, 200, 500, 1000, 2000, 4000, 4999]
  first = [0, *(n + 1 for n in last[:-1])]
  for norm, sides in (
    ('linf', [200, 142, 100, 71, 50, 35, 25, 18]),
    ('l2', [201, 143, 101, 71, 51, 35, 25, 19]),
    ('l1', [201, 143, 101, 71, 51, 35, 25, 19]),
  ):
    attack = Square(eps=0.1, norm=norm)
    for numbers in (first, last):
      assert [int(attack.side(n, 224)) for n in numbers] == sides


def test_windows_fall_anywhere_but_on_the_last_row_and_column():
  keys = jax.random.split(jax.random.key(3), 3000)
  draw = jax.jit(jax.vmap(lambda key: square.draw(key, 10, 4, 3)))
  draws = draw(keys)
  for place in (draws.first, draws.second):
    counts = np.bincount(np.asarray(place).ravel(), minlength=7)
    assert counts[6:].sum() == 0
    np.testing.assert_allclose(counts[:6], 1000, atol=150)
  assert abs(float(draws.turned.mean()) - 0.5) < 0.05
  assert set(np.unique(draws.sign)) == {-1, 1}
  assert (np.abs(draws.sign.mean(0)) < 0.1).all()
  assert (square.draw(keys[0], 10, 10, 3).first == 0).all()


def test_wrong_fields_are_refused(image, label, keys):
  for wrong in ({'norm': 'l3'}, {'loop': 'while'}, {'loss': 'ce'}):
    with pytest.raises(UserError, match='not one of'):
      ATTACKS['square'](eps=0.1, **wrong)
  with pytest.raises(UserError, match='not in'):
    Square(eps=0.1, p_init=0.0)
  attack = Square(eps=0.1, norm='l2')
  with pytest.raises(UserError, match='needs square images'):
    attack(keys, predict, image[:, 1:], label)
  with pytest.raises(UserError, match='5 x 5'):
    attack(keys, predict, image[:, :4, :4], label)
