import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.objectives import losses


def dense_target(labels, weights, classes, smoothing):
  onehot = np.eye(classes)[labels]
  target = (1 - smoothing) * (onehot * weights[..., None]).sum(-2)
  return target + smoothing / classes


def dense_loss(logits, target):
  return -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)


def example(k, classes=23, seed=0):
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(3, 4, 4, classes)).astype(np.float32) * 3
  labels = rng.integers(0, classes, (3, 4, 4, k))
  labels[0] = labels[0, :, :, :1]  # all the same
  weights = rng.dirichlet(np.ones(k), (3, 4, 4)).astype(np.float32)
  return logits, labels, weights


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('k', [1, 4, 16])
def test_sparse_equals_dense(k, smoothing):
  logits, labels, weights = example(k)
  target = jnp.asarray(dense_target(labels, weights, 23, smoothing))

  def sparse(z):
    value = losses.sparse_cross_entropy(z, labels, weights, smoothing)
    return losses.focal(value, 2.0).sum(), value

  def dense(z):
    value = dense_loss(z, target)
    return losses.focal(value, 2.0).sum(), value

  gradient, value = jax.grad(sparse, has_aux=True)(logits)
  expected_gradient, expected = jax.grad(dense, has_aux=True)(logits)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


def test_sparse_in_bfloat16_sums_in_float32():
  logits, labels, weights = example(4, classes=3311)
  rounded = jnp.asarray(logits, jnp.bfloat16)
  target = jnp.asarray(dense_target(labels, weights, 3311, 0.1))
  value, gradient = jax.value_and_grad(
    lambda z: losses.sparse_cross_entropy(z, labels, weights, 0.1).sum()
  )(rounded)
  expected, expected_gradient = jax.value_and_grad(
    lambda z: dense_loss(z, target).sum()
  )(rounded.astype(jnp.float32))
  assert gradient.dtype == jnp.bfloat16
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  # One rounding to bfloat16 and no more.
  np.testing.assert_allclose(
    gradient.astype(jnp.float32), expected_gradient, rtol=2**-8, atol=1e-6
  )


def test_label_out_of_range_is_not_silent():
  value = losses.sparse_cross_entropy(
    jnp.zeros((1, 5)), jnp.array([[5]]), jnp.ones((1, 1)), 0.1
  )
  assert np.isnan(value).all()


@pytest.mark.parametrize('gamma', [0.0, 1.5, 2.0])
def test_focal_is_finite_at_a_perfect_fit(gamma):
  value, slope = jax.value_and_grad(losses.focal)(-1e-7, gamma)
  assert np.isfinite(value) and np.isfinite(slope)


def test_focal_values_for_one_label_of_3311():
  """The values of a pure pixel at 3,311 classes with smoothing 0.1."""
  classes, smoothing = 3311, 0.1
  target = np.full(classes, smoothing / classes)
  target[0] += 1 - smoothing
  call = lambda z: losses.focal(
    losses.sparse_cross_entropy(
      jnp.asarray(z, jnp.float32)[None],
      jnp.zeros((1, 1), int),
      jnp.ones((1, 1)),
      smoothing,
    ),
    2.0,
  )[0]
  assert abs(call(np.log(target)) - 0.523) < 1e-3
  assert abs(call(np.zeros(classes)) - 8.100) < 1e-3


def test_cross_entropy_of_labels_and_of_distributions():
  logits, labels, _ = example(1)
  onehot = jax.nn.one_hot(labels[..., 0], 23)
  np.testing.assert_allclose(
    losses.cross_entropy(jnp.asarray(logits), labels[..., 0]),
    losses.cross_entropy(jnp.asarray(logits), onehot),
    rtol=1e-5,
  )
