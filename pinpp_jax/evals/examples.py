"""Shared by the evaluators: each example counted once, its key, its image."""

from collections.abc import Callable, Iterable, Iterator
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax import attacks

Batches = Callable[[], Iterable[dict[str, np.ndarray]]]
Put = Callable[[dict[str, np.ndarray]], Any]


def first(
  batches: Iterable[dict[str, np.ndarray]], limit: int | None
) -> Iterator[dict[str, np.ndarray]]:
  """Yields batches up to the first `limit` examples of a split, None for all.

  Later examples of the last batch are masked. Every process yields the same
  number of batches: the processes' parts of a global batch are assumed to have
  equal sizes, and global batches to follow the order of the split.
  """
  size = None
  for i, batch in enumerate(batches):
    size = size or len(batch['mask']) * jax.process_count()
    if limit is not None and i >= math.ceil(limit / size):
      return
    keep = True if limit is None else batch['index'] < limit
    yield batch | {'mask': np.where(keep, batch['mask'], np.float32(0))}


def one_behind(results: Iterable[Any]) -> Iterator[Any]:
  """Yields each result once the next one has been started.

  So the device works on the next batch while the host waits for this one.
  """
  waiting: list[Any] = []
  for result in results:
    waiting.append(result)
    if len(waiting) > 1:
      yield waiting.pop(0)
  yield from waiting


class Once:
  """Checks that an evaluation counts every example exactly once.

  Args:
    examples: Length of the split, None if unknown.
    limit: Number of examples asked for, None for all.
  """

  def __init__(self, examples: int | None, limit: int | None):
    self._expected = examples if limit is None else limit
    if examples is not None and limit is not None:
      self._expected = min(examples, limit)
    self._at_most = examples is None and limit is not None
    self._seen: list[np.ndarray] = []

  def see(self, batch: dict[str, np.ndarray]) -> None:
    """Notes the real examples of this process's part of a batch."""
    self._seen.append(batch['index'][batch['mask'] > 0])

  def check(self, count: float) -> None:
    """Compares with the number of examples counted over all processes.

    Raises:
      RuntimeError: If an example is missing or counts twice.
    """
    seen = np.concatenate([*self._seen, np.zeros(0, np.int32)])
    if len(np.unique(seen)) != len(seen):
      raise RuntimeError('An example appears twice in an evaluation.')
    wrong = self._expected is not None and (
      count > self._expected if self._at_most else count != self._expected
    )
    if wrong:
      raise RuntimeError(
        f'{count:g} examples were evaluated instead of {self._expected}.'
      )


def keys(key: jax.Array, ids: jax.Array) -> jax.Array:
  """Returns one key per image, which depends on the image's id alone.

  So an attack's result does not depend on batch, order, devices or resume.
  """
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, ids)


def image(
  variables: Any, batch: Any, key: jax.Array, *, model: Any, attack: Any
) -> jax.Array:
  """Returns the batch's images, float32 in [0, 1], attacked if `attack`.

  For an attack that reads parts the batch holds `attacks.LABELS`.
  """
  clean = batch['image'].astype(jnp.float32) / 255
  if attack is None:
    return clean

  if attacks.reads_parts(attack):
    predict = lambda x: model.apply(variables, x, train=False, parts=True)
    label = {name: batch[name] for name in attacks.LABELS}
  else:
    predict = lambda x: model.apply(variables, x, train=False)['logits']
    label = batch['label']
  return attack(keys(key, batch['id']), predict, clean, label)


def named(prefix: str, scores: dict[str, float]) -> dict[str, float]:
  """Puts `<prefix>_` before every name, nothing for an empty prefix."""
  return {f'{prefix}_{k}' if prefix else k: v for k, v in scores.items()}
