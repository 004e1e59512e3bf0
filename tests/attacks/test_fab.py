import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from pinpp_jax.attacks import ATTACKS, hyperplanes
from pinpp_jax.attacks.fab import FAB
from pinpp_jax.attacks.loops import Inputs
from pinpp_jax.errors import UserError

B, S, K = 7, 6, 4
EPS = {'linf': 0.06, 'l2': 0.35, 'l1': 2.0}
NORMS = hyperplanes.NORMS


@pytest.fixture
def image():
  x = np.random.default_rng(0).random((B, S, S, 3)).astype(np.float32)
  x[0, :2] = 0  # the box binds
  x[1, :2] = 1
  return jnp.asarray(x)


@pytest.fixture
def keys():
  return jax.random.split(jax.random.key(0), B)


W1 = np.random.default_rng(1).normal(size=(S * S * 3, 16)).astype(np.float32)
W2 = np.random.default_rng(2).normal(size=(16, K)).astype(np.float32)


def predict(x):
  return jnp.tanh((x.reshape(len(x), -1) - 0.5) @ W1 / 3) @ W2


@pytest.fixture
def label(image):
  own = jnp.argmax(predict(image), -1)
  return own.at[2].set((own[2] + 1) % K)  # one is wrong from the start


def lengths(norm, delta):
  delta = np.abs(np.asarray(delta, np.float64)).reshape(len(delta), -1)
  if norm == 'linf':
    return delta.max(1)
  return delta.sum(1) if norm == 'l1' else np.sqrt((delta**2).sum(1))


def fooled(x, label):
  return np.asarray(jnp.argmax(predict(x), -1) != label)


@pytest.mark.parametrize('norm', NORMS)
def test_finds_in_ball_and_box_whatever_the_loop(norm, image, label, keys):
  attack = FAB(
    eps=EPS[norm], norm=norm, steps=10, target_classes=3, loop='host'
  )
  x = attack(keys, predict, image, label)
  assert x.shape == image.shape and x.dtype == image.dtype
  assert (x >= 0).all() and (x <= 1).all()
  far = lengths(norm, x - image)
  assert (far <= EPS[norm] * (1 + 1e-5)).all()
  # What changed is misclassified; what was or resists did not change.
  np.testing.assert_array_equal(far > 0, fooled(x, label) & (np.arange(B) != 2))
  assert (far > 0).sum() >= 2
  scan = dataclasses.replace(attack, loop='scan')
  outer = jax.jit(lambda keys, *a: scan(keys, predict, *a))
  np.testing.assert_allclose(outer(keys, image, label), x, atol=1e-5)


@pytest.mark.parametrize('targeted', [True, False])
def test_neighbours_do_not_matter(targeted, image, label, keys):
  attack = FAB(
      eps=0.06, steps=4, restarts=2, target_classes=2, targeted=targeted,
  )  # fmt: skip
  together = attack(keys, predict, image, label)
  order = jnp.asarray([3, 0, 6, 2, 5, 1, 4])
  permuted = attack(keys[order], predict, image[order], label[order])
  np.testing.assert_allclose(permuted, together[order], atol=1e-5)
  # One that falls, and one that does not.
  for i in (0, 3):
    one = slice(i, i + 1)
    alone = attack(keys[one], predict, image[one], label[one])
    np.testing.assert_allclose(alone, together[one], atol=1e-5)


def test_nothing_is_found_in_an_empty_ball(image, label, keys):
  attack = FAB(eps=0.0, steps=2, target_classes=1)
  x = attack(keys, predict, image, label)
  np.testing.assert_array_equal(x, image)


def test_restarts_begin_at_half_the_radius(image, label, keys):
  for norm in NORMS:
    attack = FAB(eps=0.01, norm=norm, restarts=2, target_classes=1)
    inputs = Inputs(keys, predict, image * 0.5 + 0.25, label)
    result = attack.prepare(inputs)
    first = attack.start(0, result, inputs)
    np.testing.assert_array_equal(first.x, inputs.image)
    start = attack.start(1, result, inputs).x
    far = lengths(norm, start - inputs.image)
    np.testing.assert_allclose(far, 0.005, rtol=1e-4)


def test_calls_do_not_compile_again(image, label, keys):
  traces = []

  def counted(x):
    traces.append(x.shape)
    return predict(x)

  for loop in ('host', 'scan'):
    attack = FAB(eps=0.05, steps=2, target_classes=2, loop=loop)
    attack(keys, counted, image, label)
    before = len(traces)
    equal = FAB(eps=0.05, steps=2, target_classes=2, loop=loop)
    equal(keys[::-1], counted, image + 0, label)
    assert len(traces) == before > 0


@pytest.mark.parametrize('norm', NORMS)
def test_linear_model_is_solved_in_closed_form(norm):
  """Two classes, logits (w.x + b, 0): the distance is known."""
  rng = np.random.default_rng(3)
  w = rng.normal(size=S * S * 3).astype(np.float32)
  image = rng.uniform(0.4, 0.6, (B, S, S, 3)).astype(np.float32)
  bias = 0.3 - (image.reshape(B, -1) @ w).min()

  def linear(x):
    score = x.reshape(len(x), -1) @ w + bias
    return jnp.stack([score, jnp.zeros_like(score)], axis=1)

  score = np.asarray(linear(image))[:, 0]
  dual = {'linf': np.abs(w).sum(), 'l2': np.linalg.norm(w), 'l1': None}[norm]
  near = score / (dual or np.abs(w).max())
  if norm == 'l1':  # several pixels, where one has not enough room
    near = np.array([
      np.abs(brute('l1', x.ravel(), w, s)).sum()
      for x, s in zip(image, score, strict=True)
    ])  # fmt: skip
  attack = FAB(eps=1e3, norm=norm, steps=20, target_classes=1)
  keys = jax.random.split(jax.random.key(0), B)
  x = attack(keys, linear, image, jnp.zeros(B, jnp.int32))
  far = lengths(norm, x - image)
  # Never nearer than the boundary, and beyond it by the overshoot at most.
  assert (far >= near * (1 - 1e-4)).all()
  assert (far <= near * 1.051).all()
  assert (np.asarray(linear(x))[:, 0] <= 0).all()


def brute(norm, point, w, excess):
  """Returns a shortest move in the box onto w.u = w.point - excess."""
  n, bounds = len(point), list(zip(-point, 1 - point, strict=True))
  if norm == 'l2':
    found = scipy.optimize.minimize(
      lambda d: d @ d, np.zeros(n), jac=lambda d: 2 * d, bounds=bounds,
      constraints=[
        {'type': 'eq', 'fun': lambda d: w @ d + excess, 'jac': lambda d: w}
      ],
      options={'ftol': 1e-14, 'maxiter': 500},
    )  # fmt: skip
    return found.x
  # The move and bounds s on its sizes: |d| <= s, one s for linf, n for l1.
  sizes = np.ones((n, 1)) if norm == 'linf' else np.eye(n)
  above = np.block([[np.eye(n), -sizes], [-np.eye(n), -sizes]])
  m = sizes.shape[1]
  found = scipy.optimize.linprog(
    np.concatenate([np.zeros(n), np.ones(m)]),
    A_ub=above, b_ub=np.zeros(2 * n),
    A_eq=[np.concatenate([w, np.zeros(m)])], b_eq=[-excess],
    bounds=bounds + [(0, None)] * m,
  )  # fmt: skip
  return found.x[:n]


@pytest.fixture(scope='module')
def planes():
  """Rows of points, normals and how much of what is reachable is asked."""
  rng = np.random.default_rng(4)
  point, w = rng.random((12, 9)), rng.normal(size=(12, 9))
  point[:3, :4] = rng.integers(0, 2, (3, 4))  # on the box
  w[3, :5] = 0
  share = np.array([0.02, 0.2, 0.5, 0.7, 0.99, -0.1, -0.6, -0.9, 0, 1, 1.5, -2])
  toward = np.where(share[:, None] * w > 0, point, 1 - point)
  reach = (np.abs(w) * toward).sum(1)
  return point, w, share * reach, share


@pytest.mark.parametrize('norm', NORMS)
def test_projections_are_shortest(norm, planes):
  point, w, excess, share = planes
  move = jax.jit(hyperplanes.project, static_argnums=0)(
    norm, *(jnp.asarray(x, jnp.float32) for x in (point, w, excess))
  )
  assert (point + move >= -1e-6).all() and (point + move <= 1 + 1e-6).all()
  move = np.asarray(move, np.float64)
  gained = -(w * move).sum(1)
  feasible = np.abs(share) <= 1
  np.testing.assert_allclose(gained[feasible], excess[feasible], atol=1e-5)
  np.testing.assert_allclose(
    gained, excess / np.maximum(1, np.abs(share)), atol=1e-5
  )
  inside = np.abs(share) < 1
  rows = (move, point, w, excess)
  for d, *row in zip(*(x[inside] for x in rows), strict=True):
    shortest = lengths(norm, brute(norm, *row)[None])
    np.testing.assert_allclose(lengths(norm, d[None]), shortest, atol=2e-5)


@pytest.mark.parametrize('norm', NORMS)
def test_flat_or_equal_normals_are_harmless(norm):
  point, excess = jnp.full((3, 4), 0.5), jnp.asarray([0.0, 1.0, 0.3])
  flat = hyperplanes.project(norm, point, jnp.zeros((3, 4)), excess)
  np.testing.assert_array_equal(flat, 0)
  move = hyperplanes.project(norm, point, -jnp.ones((3, 4)), excess)
  np.testing.assert_allclose(move.sum(1), excess, atol=1e-6)


def test_wrong_fields_are_refused(image, label, keys):
  for wrong in ({'norm': 'l3'}, {'loop': 'while'}):
    with pytest.raises(UserError, match='not one of'):
      ATTACKS['fab'](eps=0.1, **wrong)
  with pytest.raises(UserError, match='too many'):
    FAB(eps=0.1, target_classes=K)(keys, predict, image, label)
  host = FAB(eps=0.1, target_classes=1, loop='host')
  with pytest.raises(UserError, match='inside jit'):
    jax.jit(lambda *a: host(keys, predict, *a))(image, label)
