"""Classification alone."""

import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from pinpp_jax.objectives import losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classify:
  """Mean cross entropy on the class label."""

  def __call__(
    self,
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, jax.Array],
    key: jax.Array,
  ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """Returns the loss, the new running statistics and scalars to log.

    Args:
      model: Network with outputs {'logits': (B, K)}.
      variables: Its params and batch_stats.
      batch: image (B, S, S, 3) float in [0, 1]; label (B,) int or (B, K).
      key: For networks that draw random numbers.
    """
    outputs, new = model.apply(
      variables,
      batch['image'],
      train=True,
      mutable=['batch_stats'],
      rngs={'dropout': key},
    )
    loss, metrics = class_loss(outputs['logits'], batch['label'])
    metrics = {'loss': loss} | metrics
    return loss, (new.get('batch_stats', {}), metrics)


def class_loss(
  logits: jax.Array, label: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the batch's mean cross entropy, and scalars to log."""
  loss = jnp.mean(losses.cross_entropy(logits, label))
  index = label if label.ndim == 1 else jnp.argmax(label, axis=-1)
  right = jnp.argmax(logits, axis=-1) == index
  accuracy = jnp.mean(right.astype(jnp.float32))
  return loss, {'class_loss': loss, 'accuracy': accuracy}
