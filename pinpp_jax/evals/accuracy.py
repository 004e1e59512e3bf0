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

_FIELDS = ('image', 'label', 'id', 'mask')


class Accuracy:
  """Top-1 and top-5 accuracy and mean cross entropy of a split.

  Called with (variables, key), returns `<prefix>_accuracy`, `<prefix>_top5`
  (shares in [0, 1]), `<prefix>_loss` (nats, hard labels) and
  `<prefix>_examples`. Top-5 says nothing about fewer than six classes and is
  then left out.

  Args:
    attack: Config section of an attack; None evaluates the images as they are.
    prefix: Names the threat model in the scores.
    limit: Evaluates only the first so many examples.
    model: Linen module.
    batches: Makes a fresh iterator of evaluation batches (numpy).
    put: Places a batch on the devices.
    labels: Label table the split is numbered by.
    examples: Length of the split; the count is compared with it.
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

  def __call__(self, variables: Any, key: jax.Array) -> dict[str, float]:
    """Goes through the split once.

    Raises:
      UserError: If the split has no example.
      RuntimeError: If an example is missing or counts twice.
    """
    once = examples_lib.Once(self._examples, self._limit)
    total: Any = None
    parts = self._counts(variables, key, once)
    for part in examples_lib.one_behind(parts):
      total = metrics.add(total, part)
    if total is None:
      raise UserError(f'No example to evaluate for {self._prefix!r} accuracy.')
    seen = float(total['accuracy'][1])
    once.check(seen)
    scores = metrics.means(total) | {'examples': seen}
    return examples_lib.named(self._prefix, scores)

  def _counts(self, variables, key, once):
    for batch in examples_lib.first(self._batches(), self._limit):
      once.see(batch)
      yield count(
        variables,
        self._put({name: batch[name] for name in _FIELDS}),
        key,
        model=self._model,
        attack=self._attack,
        num_classes=self._num_classes,
      )


@functools.partial(jax.jit, static_argnames=('model', 'attack', 'num_classes'))
def count(
  variables: Any,
  batch: Any,
  key: jax.Array,
  *,
  model: Any,
  attack: Any,
  num_classes: int,
) -> dict[str, tuple[jax.Array, jax.Array]]:
  """Returns (sum, count) of the scores, without prefix, over real images."""
  image = examples_lib.image(variables, batch, key, model=model, attack=attack)
  logits = model.apply(variables, image, train=False)['logits']
  if logits.shape[-1] != num_classes:
    raise UserError(
      f'The model has {logits.shape[-1]} classes and the data {num_classes}:'
      ' evaluate it on the data set it was trained for.'
    )
  label, mask = batch['label'], batch['mask'] > 0
  log_p = jnp.take_along_axis(
    jax.nn.log_softmax(logits.astype(jnp.float32)), label[:, None], axis=-1
  )[:, 0]
  # The best of several equal logits is the first, for top-1 and top-5 alike.
  # A broken network must not be right: NaN would win every comparison.
  _, best = jax.lax.top_k(logits, min(5, logits.shape[-1]))
  right = (best == label[:, None]) & jnp.isfinite(logits).all(-1)[:, None]
  values = {'accuracy': right[:, 0], 'loss': -log_p}
  if num_classes > 5:
    values['top5'] = right.any(-1)
  return {
    name: (jnp.sum(jnp.where(mask, value, 0)), jnp.sum(mask))
    for name, value in values.items()
  }
