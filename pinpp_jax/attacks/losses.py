"""Losses that attacks raise, per example."""

import jax
import jax.numpy as jnp

from pinpp_jax.errors import UserError


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns each example's cross entropy, (B,).

  Args:
    logits: (B, K).
    label: Integers (B,), or distributions (B, K).
  """
  dtype = jnp.promote_types(logits.dtype, jnp.float32)
  log_p = jax.nn.log_softmax(logits.astype(dtype))
  if label.ndim == logits.ndim:
    return -jnp.sum(label * log_p, axis=-1)
  return -jnp.take_along_axis(log_p, label[:, None], axis=-1)[:, 0]


def dlr(logits: jax.Array, label: jax.Array) -> jax.Array:
  """Returns each example's difference of logits ratio, (B,).

  -(z_y - max of the others) / (z_1 - z_3), with z_1 >= z_2 >= z_3 the largest
  logits: above 0 where misclassified, and invariant to the logits' scale and
  shift (Croce & Hein, arXiv:2003.01690).

  Args:
    logits: (B, K) with K >= 3; UserError otherwise.
    label: Integers (B,).
  """
  logits, top, order = _largest(logits, 3, 'dlr')
  own = _pick(logits, label)
  other = jnp.where(order[:, 0] == label, top[:, 1], top[:, 0])
  return -(own - other) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(
  logits: jax.Array, label: jax.Array, target: jax.Array
) -> jax.Array:
  """Returns the difference of logits ratio towards a class, (B,).

  -(z_y - z_target) / (z_1 - (z_3 + z_4) / 2), see `dlr`.

  Args:
    logits: (B, K) with K >= 4; UserError otherwise.
    label: Integers (B,).
    target: Integers (B,): the class whose logit is to overtake the label's.
  """
  logits, top, _ = _largest(logits, 4, 'targeted_dlr')
  gap = _pick(logits, label) - _pick(logits, target)
  return -gap / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


def _largest(logits, number, loss):
  """Returns the logits in float32 or wider, the largest, and their indices."""
  classes = logits.shape[-1]
  if classes < number:
    raise UserError(
      f'The loss {loss!r} of an attack needs at least {number} classes, the '
      f"network has {classes}; use loss='ce'."
    )
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  return logits, *jax.lax.top_k(logits, number)


def _pick(logits, index):
  return jnp.take_along_axis(logits, index[:, None], axis=-1)[:, 0]
