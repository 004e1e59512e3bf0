"""Cross entropies: with soft labels, and with few distinct labels."""

import functools

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns each example's cross entropy.

  Args:
    logits: (..., K).
    label: Integers (...), or distributions (..., K).

  Returns:
    (...) float32, or float64 for float64 logits.
  """
  log_p = jax.nn.log_softmax(_at_least_float32(logits))
  if label.ndim == logits.ndim:
    return -jnp.sum(label * log_p, axis=-1)
  return -jnp.take_along_axis(log_p, label[..., None], axis=-1)[..., 0]


def focal(cross_entropy: jax.Array, gamma: float) -> jax.Array:
  """Returns (1 - p)^gamma ce with p = exp(-ce), for any soft target."""
  if gamma == 0:
    return cross_entropy
  # Rounding may leave a perfect fit a little below 0.
  miss = jnp.maximum(-jnp.expm1(-cross_entropy), 0)
  return miss**gamma * cross_entropy


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def sparse_cross_entropy(
  logits: jax.Array, labels: jax.Array, weights: jax.Array, smoothing: float
) -> jax.Array:
  """Returns the cross entropy with a target that has few distinct labels.

  The target is (1 - smoothing) sum_k weights_k onehot(labels_k) + smoothing/C.
  It is never built: the loss is computed from the log-sum-exp, the gathered
  logits and the mean logit. The only (..., C) arrays, here and in the backward
  pass, are the logits and their gradient, which keep the logits' dtype; sums
  are taken in float32.

  Args:
    logits: (..., C), any float dtype.
    labels: (..., k) integers; one outside [0, C) makes the result NaN.
    weights: (..., k) floats that sum to 1 over k.
    smoothing: Share of the uniform distribution in the target.

  Returns:
    (...) float32, or float64 for float64 logits.
  """
  return _sparse_forward(logits, labels, weights, smoothing)[0]


def _sparse_forward(logits, labels, weights, smoothing):
  z = _at_least_float32(logits)
  log_sum = jax.nn.logsumexp(z, axis=-1)
  # Gathered before the cast, so that no float32 copy of the logits is needed.
  picked = _at_least_float32(jnp.take_along_axis(logits, labels, axis=-1))
  value = log_sum - (1 - smoothing) * jnp.sum(weights * picked, axis=-1)
  if smoothing:
    value = value - smoothing * jnp.mean(z, axis=-1)
  return value, (logits, labels, weights, log_sum)


def _sparse_backward(smoothing, residuals, cotangent):
  logits, labels, weights, log_sum = residuals
  uniform = smoothing / logits.shape[-1]
  z = _at_least_float32(logits)
  p = jnp.exp(z - log_sum[..., None])
  gradient = (cotangent[..., None] * (p - uniform)).astype(logits.dtype)
  # The label positions are overwritten rather than added to: each gets its
  # final value before it is rounded to the logits' dtype, and positions named
  # twice get the same value twice, so that the order does not matter.
  same = labels[..., :, None] == labels[..., None, :]
  weights = weights.astype(z.dtype)[..., None, :]
  share = jnp.sum(jnp.where(same, weights, 0), axis=-1)
  picked = _at_least_float32(jnp.take_along_axis(logits, labels, axis=-1))
  p = jnp.exp(picked - log_sum[..., None])
  exact = cotangent[..., None] * (p - uniform - (1 - smoothing) * share)
  gradient = _overwrite(gradient, labels, exact.astype(logits.dtype))
  return gradient, None, None


sparse_cross_entropy.defvjp(
  lambda logits, labels, weights, smoothing: _sparse_forward(
    logits, labels, weights, smoothing
  ),
  _sparse_backward,
)


def _overwrite(x: jax.Array, index: jax.Array, value: jax.Array) -> jax.Array:
  """Returns x (..., C) with `value` (..., k) at `index` (..., k)."""
  put = lambda row, i, v: row.at[i].set(v, mode='drop')
  # vmap gives the scatter batch dimensions, which stay sharded.
  for _ in range(x.ndim - 1):
    put = jax.vmap(put)
  return put(x, index, value)


def _at_least_float32(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
