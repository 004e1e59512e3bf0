"""Part segmentation among the parts of an image's class."""

import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from pinpp_jax.errors import UserError
from pinpp_jax.objectives import losses

# Its exp is 0 in float32, and differences of it are finite.
_IMPOSSIBLE = -1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
  """Cross entropy of every labelled pixel, and `dice` times the Dice loss.

  Background and the parts of the image's class compete; the scores of other
  classes' parts are never computed, so nothing teaches the network to tell
  classes apart: its "open" segmentation scores mean little. Scores are resized
  to the labels' grid. Pixels with a negative label, and images without a part
  mask (source 0), are ignored: they are in neither sum nor count.

  Attributes:
    dice: Weight of the Dice loss (Milletari et al., arXiv:1606.04797): one
      minus the mean of 2 sum(p q) / (sum(p) + sum(q)), here over the parts that
      the labels of an image show, background included.
    pseudo_weight: Weight of an image whose part mask was predicted by a
      network, against 1 for one annotated by people.
  """

  dice: float = 0.0
  pseudo_weight: float = 1.0

  def __call__(
    self,
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, jax.Array],
    key: jax.Array,
  ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """Returns the loss, the new running statistics and scalars to log.

    Args:
      model: Network with `candidates` as an argument and outputs {'parts':
        [(B, h, w, m)]}.
      variables: Its params and batch_stats.
      batch: image (B, S, S, 3) float in [0, 1]; parts (B, G, G) int part ids,
        0 background; candidates (B, m) int, see LabelTable; source (B,) int.
      key: For networks that draw random numbers.
    """
    if 'parts_other' in batch:
      raise UserError(
        'Mixed images have more than one label per pixel: set'
        ' augment.mix_probability=0 for a segmenter.'
      )
    outputs, new = model.apply(
      variables,
      batch['image'],
      train=True,
      parts=True,
      candidates=batch['candidates'],
      mutable=['batch_stats'],
      rngs={'dropout': key},
    )
    loss, metrics = self.segmentation_loss(outputs['parts'][0], batch)
    return loss, (new.get('batch_stats', {}), {'loss': loss} | metrics)

  def segmentation_loss(
    self, scores: jax.Array, batch: dict[str, jax.Array]
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss and scalars by name, from the candidates' scores.

    Args:
      scores: (B, h, w, m) float.
      batch: parts, candidates and source, as above.
    """
    target = local_labels(batch['parts'], batch['candidates'])
    scores = among_candidates(scores, batch['candidates'])
    shape = (*target.shape, scores.shape[-1])
    scores = jax.image.resize(scores, shape, 'linear', antialias=False)
    source = batch['source'][:, None, None]
    weight = jnp.where(source == 2, self.pseudo_weight, 1.0)
    weight = jnp.where((source == 0) | (target < 0), 0.0, weight)
    target = jnp.maximum(target, 0)

    def mean(values):
      # No pixel with a weight: 0 / 1, and a zero gradient.
      total = jnp.sum(weight)
      return jnp.sum(weight * values) / jnp.where(total > 0, total, 1)

    entropy = mean(losses.cross_entropy(scores, target))
    right = mean((jnp.argmax(scores, -1) == target).astype(jnp.float32))
    metrics = {'pixel_loss': entropy, 'pixel_accuracy': right}
    if not self.dice:
      return entropy, metrics
    metrics['dice_loss'] = dice_loss(scores, target, weight > 0)
    return entropy + self.dice * metrics['dice_loss'], metrics


def local_labels(parts: jax.Array, candidates: jax.Array) -> jax.Array:
  """Returns the index of each label among its image's candidates.

  Args:
    parts: (B, h, w) part ids, 0 background, negative to be ignored.
    candidates: (B, m) ids: 0, the class's parts in a row, 0 again.

  Returns:
    (B, h, w) int, 0 for background; negative labels stay negative.
  """
  first = jnp.max(candidates[:, 1:2], axis=1, initial=0)[:, None, None]
  return jnp.where(parts > 0, parts - first + 1, parts)


def among_candidates(scores: jax.Array, candidates: jax.Array) -> jax.Array:
  """Returns scores (B, h, w, m), very low for candidates that are padding."""
  real = (candidates > 0) | (jnp.arange(candidates.shape[1])[None] == 0)
  return jnp.where(real[:, None, None], scores, _IMPOSSIBLE)


def dice_loss(
  scores: jax.Array, target: jax.Array, counted: jax.Array
) -> jax.Array:
  """Returns the mean Dice loss over the labels present in each image.

  Args:
    scores: (B, h, w, m).
    target: (B, h, w) int in [0, m).
    counted: (B, h, w) bool, False for pixels that are ignored.
  """
  # m is the number of one class's parts: this one-hot is small.
  truth = jax.nn.one_hot(target, scores.shape[-1]) * counted[..., None]
  p = jax.nn.softmax(scores) * counted[..., None]
  both = jnp.sum(p * truth, (1, 2))
  size = jnp.sum(p + truth, (1, 2))
  shown = jnp.any(truth > 0, (1, 2))
  dice = 1 - 2 * both / jnp.where(size > 0, size, 1)
  return jnp.sum(jnp.where(shown, dice, 0)) / jnp.maximum(jnp.sum(shown), 1)
