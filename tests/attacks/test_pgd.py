import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.attacks import ATTACKS, losses, norms, pgd
from pinpp_jax.attacks.pgd import PGD
from pinpp_jax.errors import UserError

B, S, K = 5, 6, 4


@pytest.fixture
def image():
  rng = np.random.default_rng(0)
  x = rng.random((B, S, S, 3)).astype(np.float32)
  x[0, :2] = 0  # the box binds
  x[1, :2] = 1
  return jnp.asarray(x)


@pytest.fixture
def label():
  return jnp.arange(B) % K


@pytest.fixture
def keys():
  return jax.random.split(jax.random.key(0), B)


@pytest.fixture
def predict():
  rng = np.random.default_rng(1)
  first = jnp.asarray(rng.normal(size=(3, 3, 3, 8)) * 0.5, jnp.float32)
  last = jnp.asarray(rng.normal(size=(8, K)), jnp.float32)

  def call(x):
    x = jax.nn.gelu(conv(x, first))
    return jnp.max(x, axis=(1, 2)) @ last

  return call


def conv(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def distance(norm, x, image):
  delta = np.abs(np.asarray(x) - np.asarray(image)).reshape(B, -1)
  return delta.max(1) if norm == 'linf' else np.sqrt((delta**2).sum(1))


@pytest.mark.parametrize('best', pgd.BEST)
@pytest.mark.parametrize('norm', norms.NORMS)
def test_stays_in_ball_and_box(norm, best, image, label, keys, predict):
  eps = {'linf': 0.1, 'l2': 0.7}[norm]
  attack = PGD(eps=eps, step_size=eps, steps=2, norm=norm, best=best)
  x = jax.jit(lambda *a: attack(keys, predict, *a))(image, label)
  assert x.shape == image.shape and x.dtype == image.dtype
  assert (x >= 0).all() and (x <= 1).all()
  assert (distance(norm, x, image) <= eps * (1 + 1e-5)).all()
  assert (distance(norm, x, image) > eps / 4).all()


@pytest.mark.parametrize('norm', norms.NORMS)
def test_best_of_each_image_never_lowers_the_loss(
  norm, image, label, keys, predict
):
  # Steps far too long: the last iterate is often worse than the start.
  attack = PGD(
      eps=0.5, step_size=3.0, steps=3, norm=norm, best='example',
      random_start=False,
  )  # fmt: skip
  loss = lambda x: losses.cross_entropy(predict(x), label)
  x = attack(keys, predict, image, label)
  assert (loss(x) >= loss(image)).all()


def test_best_options_pick_among_the_iterates(image, label, keys, predict):
  attack = PGD(eps=0.3, step_size=0.3, steps=2)
  iterates = [
    dataclasses.replace(attack, steps=n)(keys, predict, image, label)
    for n in range(3)
  ]
  values = np.array([losses.cross_entropy(predict(x), label) for x in iterates])
  for best, chosen in (
    ('last', np.full(B, 2)),
    ('example', values.argmax(0)),
    ('batch', np.full(B, values.mean(1).argmax())),
  ):
    x = dataclasses.replace(attack, best=best)(keys, predict, image, label)
    expected = np.stack([iterates[n][i] for i, n in enumerate(chosen)])
    np.testing.assert_allclose(x, expected, atol=1e-6)


@pytest.mark.parametrize(
  ('norm', 'best'), [('linf', 'last'), ('l2', 'example')]
)
def test_neighbours_do_not_matter(norm, best, image, label, keys, predict):
  attack = PGD(eps=0.2, step_size=0.1, steps=2, norm=norm, best=best)
  call = jax.jit(lambda keys, *a: attack(keys, predict, *a))
  together = call(keys, image, label)
  for i in (0, 3):
    one = slice(i, i + 1)
    alone = call(keys[one], image[one], label[one])
    np.testing.assert_allclose(together[one], alone, atol=1e-6)


def test_linear_model_is_solved_in_closed_form(keys):
  """Two classes, logits (w.x, 0): the best image moves along w."""
  rng = np.random.default_rng(2)
  w = jnp.asarray(rng.normal(size=(S, S, 3)), jnp.float32)
  image = jnp.asarray(rng.uniform(0.3, 0.7, (B, S, S, 3)), jnp.float32)

  def predict(x):
    score = jnp.sum(x * w[None], axis=(1, 2, 3))
    return jnp.stack([score, jnp.zeros_like(score)], axis=1)

  label = jnp.zeros(B, jnp.int32)
  attack = PGD(eps=0.1, step_size=0.05, steps=8)
  x = attack(keys, predict, image, label)
  np.testing.assert_allclose(x, image - 0.1 * jnp.sign(w)[None], atol=1e-6)
  attack = PGD(eps=0.5, step_size=0.25, steps=40, norm='l2')
  x = jax.jit(lambda keys: attack(keys, predict, image, label))(keys)
  unit = w / jnp.linalg.norm(w)
  np.testing.assert_allclose(x, image - 0.5 * unit[None], atol=1e-3)


@pytest.mark.parametrize('norm', norms.NORMS)
def test_zero_gradients_are_harmless(norm, image, label, keys):
  attack = PGD(eps=0.1, step_size=0.1, steps=2, norm=norm, best='example')
  constant = lambda x: jnp.zeros((x.shape[0], K)) * jnp.sum(x)
  assert np.isfinite(attack(keys, constant, image, label)).all()
  x = dataclasses.replace(attack, random_start=False, eps=0.0)(
    keys, constant, image, label
  )
  np.testing.assert_array_equal(x, image)


def test_soft_labels_are_distributions(image, label, keys, predict):
  attack = PGD(eps=0.1, step_size=0.1, steps=2)
  np.testing.assert_allclose(
    attack(keys, predict, image, label),
    attack(keys, predict, image, jax.nn.one_hot(label, K)),
  )


@pytest.mark.parametrize('norm', norms.NORMS)
def test_random_start_fills_the_ball(norm):
  image = jnp.full((200, S, S, 3), 0.5)
  keys = jax.random.split(jax.random.key(1), 200)
  start = norms.random_start(norm, keys, image, 0.1)
  size = np.abs(start - image).reshape(200, -1)
  far = size.max(1) if norm == 'linf' else np.sqrt((size**2).sum(1))
  assert (far <= 0.1 + 1e-6).all() and far.mean() > 0.095
  assert np.unique(np.asarray(far)).size > 150


def count(jaxpr, name):
  total = 0
  for equation in jaxpr.eqns:
    total += equation.primitive.name == name
    for value in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda v: hasattr(v, 'jaxpr')
    ):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        total += count(inner, name)
  return total


@pytest.mark.parametrize(
  ('best', 'restarts', 'passes'),
  [('last', 1, 4), ('example', 1, 5), ('last', 3, 3 * 4 + 2)],
)
def test_no_gradient_for_the_weights(
  best, restarts, passes, image, label, keys
):
  """Forward and input gradient: 2 of 3 passes, and one more for the best.

  And one more between two restarts, of which training has none.
  """
  layers = 3
  kernels = [jnp.ones((3, 3, 3, 3)) for _ in range(layers)]
  head = jnp.ones((3, K))

  def attacked(kernels, head, image):
    def predict(x):
      for kernel in kernels:
        x = jax.nn.gelu(conv(x, kernel))
      return jnp.mean(x, axis=(1, 2)) @ head

    attack = PGD(eps=0.1, step_size=0.1, steps=2, best=best, restarts=restarts)
    return attack(keys, predict, image, label)

  jaxpr = jax.make_jaxpr(attacked)(kernels, head, image).jaxpr
  assert count(jaxpr, 'conv_general_dilated') == passes * layers
  assert count(jaxpr, 'dot_general') == passes


def test_step_size_may_be_traced(image, label, keys, predict):
  attack = PGD(eps=0.1, step_size=0.05, steps=2)

  @jax.jit
  def call(factor):
    ramped = dataclasses.replace(attack, step_size=attack.step_size * factor)
    return ramped(keys, predict, image, label)

  np.testing.assert_allclose(
    call(1.0), attack(keys, predict, image, label), atol=1e-6
  )
  start = norms.random_start('linf', keys, image, 0.1)
  np.testing.assert_allclose(call(0.0), start, atol=1e-6)


def test_a_loop_and_its_unrolled_form_agree(image, label, keys, predict):
  steps = pgd.CPU_UNROLLED_STEPS
  attack = PGD(eps=0.1, step_size=0.02, steps=steps, best='example')
  looped = dataclasses.replace(attack, steps=steps + 1)
  jaxpr = jax.make_jaxpr(lambda: looped(keys, predict, image, label))().jaxpr
  assert count(jaxpr, 'while') + count(jaxpr, 'scan') >= 1
  x = looped(keys, predict, image, label)
  loss = lambda x: losses.cross_entropy(predict(x), label)
  start = norms.random_start('linf', keys, image, 0.1)
  assert (loss(x) >= loss(start)).all()
  double = lambda carry: carry * 2
  assert pgd.repeat(steps, double, jnp.ones(())) == 2.0**steps
  assert pgd.repeat(steps + 1, double, jnp.ones(())) == 2.0 ** (steps + 1)


def weak():
  """Returns an attack that breaks few of its images, and what it attacks."""
  n = 40
  rng = np.random.default_rng(7)
  image = jnp.asarray(rng.random((n, S, S, 3)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(S * S * 3, K)), jnp.float32)
  predict = lambda x: x.reshape(x.shape[0], -1) @ w
  label = jnp.argmax(predict(image), axis=-1)
  keys = jax.random.split(jax.random.key(3), n)
  attack = PGD(eps=0.3, step_size=0.002, steps=2)
  return attack, keys, predict, image, label


@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('restarts', [2, 4, 8])
def test_the_first_broken_restart_is_kept(restarts, soft):
  """Eight restarts of two steps run in a loop, fewer are unrolled."""
  attack, keys, predict, image, label = weak()
  points = [attack(keys, predict, image, label)]
  for number in range(1, restarts):
    folded = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
    points.append(attack(folded, predict, image, label))
  broken = np.array([predict(x).argmax(-1) != label for x in points])
  first = np.where(broken.any(0), broken.argmax(0), restarts - 1)
  if restarts == 8:
    assert len(set(first[broken.any(0)])) >= 3 and not broken.any(0).all()
  many = dataclasses.replace(attack, restarts=restarts)
  x = many(keys, predict, image, jax.nn.one_hot(label, K) if soft else label)
  expected = np.stack([points[r][i] for i, r in enumerate(first)])
  np.testing.assert_allclose(x, expected, atol=1e-6)
  now = predict(x).argmax(-1) != label
  np.testing.assert_array_equal(now, broken.any(0))


def test_a_network_that_breaks_down_is_broken():
  attack, keys, _, image, label = weak()
  nan = lambda x: jnp.full((x.shape[0], K), jnp.nan) + 0 * jnp.sum(x)
  assert attack.misclassified(nan(image), label).all()
  x = dataclasses.replace(attack, restarts=2)(keys, nan, image, label)
  once = attack(keys, nan, image, label)
  np.testing.assert_array_equal(x, once)


def test_restarts_need_a_random_start():
  for wrong in ({'restarts': 0}, {'restarts': 2, 'random_start': False}):
    with pytest.raises(UserError, match='restarts'):
      PGD(eps=0.1, step_size=0.1, steps=1, **wrong)


def test_unknown_options_are_refused():
  for wrong in ({'norm': 'l3'}, {'best': 'first'}):
    with pytest.raises(UserError, match='not one of'):
      ATTACKS['pgd'](eps=0.1, step_size=0.1, steps=1, **wrong)
