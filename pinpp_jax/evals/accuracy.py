"""Classification accuracy, clean or under an attack."""

from collections.abc import Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp

from pinpp_jax import attacks, metrics
from pinpp_jax.construct import construct
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.errors import UserError
from pinpp_jax.evals import examples as examples_lib
from pinpp_jax.evals import predictions

_FIELDS = ('image', 'label', 'id', 'mask')


class Accuracy:
  """Top-1 and top-5 accuracy and mean cross entropy of a split.

  Called with (variables, key), returns `<prefix>_accuracy`, `<prefix>_top5`
  (shares in [0, 1]), `<prefix>_loss` (nats, hard labels) and
  `<prefix>_examples`. Top-5 is left out for fewer than six classes.

  An attack that reads parts is scored only over images with a part mask, since
  it cannot attack others; `<prefix>_examples` is their number. If a split has
  none, that 0 is the only score.

  Args:
    attack: Config section of an attack; None evaluates the images as they are.
    prefix: Names the threat model in the scores.
    limit: Number of examples to evaluate, from the first; None for all.
    model: Linen module.
    batches: Makes a fresh iterator of evaluation batches (numpy).
    put: Places a batch on the devices.
    labels: Label table the split is numbered by.
    examples: Length of the split; the count is compared with it.

  Raises:
    UserError: If the attack reads parts and the label table has none.
  """

  def __init__(
    self,
    *,
    attack: Mapping[str, Any] | None = None,
    prefix: str = 'clean',
    limit: int | None = None,
    model: Any,
    batches: examples_lib.Batches,
    put: examples_lib.Put,
    labels: LabelTable,
    examples: int | None = None,
  ):
    self._attack = construct(attacks.ATTACKS, attack) if attack else None
    self._prefix, self._limit, self._examples = prefix, limit, examples
    self._model, self._batches, self._put = model, batches, put
    self._num_classes = labels.num_classes
    self._fields, self._fixed, self._channels = _FIELDS, {}, 0
    if attacks.reads_parts(self._attack):
      self._fields += ('parts', 'source')
      self._fixed = {'class_parts': labels.candidates}
      self._channels = _channels(self._attack, labels)

  def __call__(self, variables: Any, key: jax.Array) -> dict[str, float]:
    """Goes through the split once.

    Raises:
      UserError: If the split has no example, or the model lacks the parts
        that the attack reads.
      RuntimeError: If an example is missing or counts twice.
    """
    once = examples_lib.Once(self._examples, self._limit)
    total: Any = None
    parts = self._counts(variables, key, once)
    for part in examples_lib.one_behind(parts):
      total = metrics.add(total, part)
    if total is None:
      raise UserError(
        f'The split has no example to evaluate ({self._prefix} accuracy).'
      )
    once.check(float(total.pop('seen')[0]))
    scored = float(total['accuracy'][1])
    scores = metrics.means(total) if scored else {}
    return examples_lib.named(self._prefix, scores | {'examples': scored})

  def _counts(self, variables, key, once):
    for batch in examples_lib.first(self._batches(), self._limit):
      once.see(batch)
      yield count(
        variables,
        self._put({name: batch[name] for name in self._fields}) | self._fixed,
        key,
        model=self._model,
        attack=self._attack,
        num_classes=self._num_classes,
        channels=self._channels,
      )


def _channels(attack: Any, labels: LabelTable) -> int:
  """Returns how many part channels a network must have for an attack."""
  if not labels.num_parts:
    raise UserError(
      'The attack reads parts but the data set has no part labels; use a data'
      ' set with part masks, or the attack pgd.'
    )
  objects = attack.targets == 'objects'
  return 1 + (labels.num_classes if objects else labels.num_parts)


@functools.partial(
  jax.jit, static_argnames=('model', 'attack', 'num_classes', 'channels')
)
def count(
  variables: Any,
  batch: Any,
  key: jax.Array,
  *,
  model: Any,
  attack: Any,
  num_classes: int,
  channels: int = 0,
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Returns (sum, count) of the scores, without prefix, over real images.

  With `channels`, the number of part channels of a network whose parts are
  attacked, over images with a part mask. `seen` counts all real images.
  """
  if channels:
    outputs = predictions.outputs(model, variables, batch['image'])
    predictions.finest(outputs, channels)
  image = examples_lib.image(variables, batch, key, model=model, attack=attack)
  logits = model.apply(variables, image, train=False)['logits']
  if logits.shape[-1] != num_classes:
    raise UserError(
      f'The model has {logits.shape[-1]} classes and the data {num_classes}:'
      ' evaluate it on the data set that it was trained on.'
    )
  label, seen = batch['label'], batch['mask'] > 0
  mask = seen & (batch['source'] != 0) if channels else seen
  log_p = jnp.take_along_axis(
    jax.nn.log_softmax(logits.astype(jnp.float32)), label[:, None], axis=-1
  )[:, 0]
  # Of equal logits the first is the best, for top-1 and top-5 alike. An image
  # whose logits are not finite counts as wrong: NaN wins every comparison.
  _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
  right = (best == label[:, None]) & jnp.isfinite(logits).all(-1)[:, None]
  values = {'accuracy': right[:, 0], 'loss': -log_p}
  if num_classes > 5:
    values['top5'] = right.any(-1)
  sums = {
    name: (jnp.sum(jnp.where(mask, value, 0)), jnp.sum(mask))
    for name, value in values.items()
  }
  return sums | {'seen': (jnp.sum(seen), jnp.sum(seen))}
