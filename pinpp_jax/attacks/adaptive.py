"""Adaptive attack on networks trained with parts: it attacks the parts too.

After the attacks on segmentations of Li et al. (ROCK, TPAMI 2023) and Sitawarin
et al. (arXiv:2209.09117), for networks that label parts beside the class.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from pinpp_jax.attacks import losses, pgd
from pinpp_jax.errors import UserError
from pinpp_jax.objectives import parts as parts_lib

AIMS = ('away', 'other')


@dataclasses.dataclass(frozen=True, kw_only=True)
class JointPGD(pgd.PGD):
  """PGD on `class_weight` x cross entropy + `part_weight` x part loss.

  Weights (1, 1) attack the loss of joint supervision, (0, 1) the segmentation
  alone, (1, 0) is PGD. An image is broken if its class is wrong, whatever the
  weights.

  The part loss is that of training, per image: the mean over levels of the
  focal soft cross entropy. Every cell of an image counts, also in images
  without a labelled cell; evaluators leave out images without a part mask.

  Attributes:
    class_weight: Of the cross entropy.
    part_weight: Of the part loss. At 0 the bypass is never computed.
    aim: 'away' raises the part loss against the true parts. 'other' lowers it
      against parts of another class, the one of the largest wrong logit on the
      clean image: the target of every foreground cell is its best-scored part
      of that class. Costs one more forward pass.
    smoothing: Of the part targets, as in training.
    gamma: Focal exponent, as in training; 0 gives cells that are predicted
      with confidence the same weight as others.
    targets: 'parts', or 'objects' for a network trained with object masks.
  """

  reads_parts: ClassVar[bool] = True

  class_weight: float = 1.0
  part_weight: float = 1.0
  aim: str = 'away'
  smoothing: float = 0.1
  gamma: float = 2.0
  targets: str = 'parts'

  def __post_init__(self):
    super().__post_init__()
    if self.aim not in AIMS:
      raise UserError(f'aim={self.aim!r} of joint_pgd is not one of {AIMS}.')
    weights = self.class_weight, self.part_weight
    if min(weights) < 0 or max(weights) == 0:
      raise UserError(
        'class_weight and part_weight of joint_pgd must be at least 0 and not '
        f'both 0; they are {weights}.'
      )
    self._part_losses()

  def __call__(
    self,
    keys: jax.Array,
    predict: Callable[[jax.Array], Any],
    image: jax.Array,
    label: Any,
  ) -> jax.Array:
    """Returns adversarial images (B, H, W, C); see the package's docstring.

    Raises:
      UserError: If the network has no part outputs, or the caller attacks
        logits alone, as training does.
    """
    if not isinstance(label, dict):
      raise UserError(
        'joint_pgd needs the part labels of the images: use it in '
        'config.evals, not as config.attack.'
      )
    if self.part_weight and self.aim == 'other':
      label = self._of_other_class(predict(image), label)
    return super().__call__(keys, predict, image, label)

  def objective(self, outputs: Any, label: Any) -> jax.Array:
    """Returns the weighted sum of the losses that the attack raises, (B,)."""
    total = jnp.zeros((), jnp.float32)
    if self.class_weight:
      value = losses.cross_entropy(outputs['logits'], label['label'])
      total = total + self.class_weight * value
    if self.part_weight:
      # Object labels are numbered by class, so the class aimed at names them.
      batch = label | {'label': label.get('other', label['label'])}
      value = self._part_losses().image_losses(_parts(outputs), batch)
      sign = 1 if self.aim == 'away' else -1
      total = total + sign * self.part_weight * value
    return total

  def misclassified(self, outputs: Any, label: Any) -> jax.Array:
    """Returns which images are misclassified, (B,) bool; NaN counts as such."""
    return super().misclassified(outputs['logits'], label['label'])

  def _part_losses(self) -> parts_lib.Parts:
    return parts_lib.Parts(
      smoothing=self.smoothing, gamma=self.gamma, targets=self.targets
    )

  def _of_other_class(self, outputs: Any, label: Any) -> dict[str, Any]:
    """Returns labels with `parts` of another class, and that class, `other`."""
    logits, own = outputs['logits'], label['label']
    wrong = jnp.arange(logits.shape[-1])[None] != own[:, None]
    other = jnp.argmax(jnp.where(wrong, logits, -jnp.inf), axis=-1)
    found = label['parts']
    if self.targets == 'parts':
      ids = label['class_parts'][other][:, 1:]
      scores = jax.vmap(lambda z, i: z[..., i])(_parts(outputs)[0], ids)
      # The zeros that fill a row are padding.
      scores = jnp.where(ids[:, None, None] > 0, scores, -jnp.inf)
      best = jax.vmap(lambda i, k: i[k])(ids, jnp.argmax(scores, axis=-1))
      ratio = found.shape[1] // best.shape[1]
      best = jnp.repeat(jnp.repeat(best, ratio, axis=1), ratio, axis=2)
      found = jnp.where(found > 0, best, 0)
    return label | {'parts': found, 'other': other}


def _parts(outputs: Any) -> list[jax.Array]:
  if not outputs.get('parts'):
    raise UserError(
      'joint_pgd needs a network with part outputs (mpm, two_stage); this one'
      ' has none. Use attack pgd for it.'
    )
  return outputs['parts']
