"""What an attack drives up, per example."""

import jax
import jax.numpy as jnp


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
