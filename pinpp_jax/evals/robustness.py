"""AutoAttack on a split, as an evaluator."""

from collections.abc import Mapping
import functools
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax.errors import UserError
from pinpp_jax.evals import examples as examples_lib
from pinpp_jax.evals.autoattack import ensemble as autoattack_lib
from pinpp_jax.evals.autoattack import robustbench as robustbench_lib
from pinpp_jax.evals.autoattack.result import Outcome
from pinpp_jax.machine import processes

LOGGER = logging.getLogger(__name__)


class AutoAttack:
  """Robust accuracy of a split under AutoAttack; see `autoattack.autoattack`.

  Called with (variables, key), returns `<prefix>_accuracy`, the share of
  images that survive every attack, `<prefix>_clean_accuracy`,
  `<prefix>_<attack>_accuracy` after each attack, and `<prefix>_examples`.
  The folder gets `result.json`, and the state after each chunk, so that the
  same run resumes where it was stopped. With several processes each returns the
  same scores, and process 0 writes.

  Args:
    norm: 'linf', 'l2' or 'l1'.
    eps: Radius, for pixels in [0, 1].
    version: 'standard', 'plus', 'aa-2' (an upper bound) or 'custom'.
    attacks: For 'custom', options by the attack's name.
    batch_size: Images in a chunk.
    individual: Run every attack on all images.
    save_adversarial: Write `adversarial.npy`, float32, and `ids.npy`.
    search_dtype: The network's dtype while attacks search, for instance
      'bfloat16'; '' for float32. Successes are always checked in float32.
    robustbench: Fields of `robustbench.Entry`; if given, the folder gets the
      file for RobustBench's leaderboard.
    prefix: Names the threat model in the scores; '' for `<version>_<norm>`.
    limit: Number of examples to evaluate, from the first; None for all.
    model: Linen module; evaluated in float32.
    batches: Makes a fresh iterator of evaluation batches (numpy).
    folder: Folder of the state and the result; None writes nothing.
    about: Entries about the images for the result.
  """

  def __init__(
    self,
    *,
    eps: float,
    norm: str = 'linf',
    version: str = 'standard',
    attacks: Mapping[str, Mapping[str, Any]] | None = None,
    batch_size: int = 256,
    individual: bool = False,
    save_adversarial: bool = False,
    search_dtype: str = '',
    robustbench: Mapping[str, Any] | None = None,
    prefix: str = '',
    limit: int | None = None,
    model: Any,
    batches: examples_lib.Batches,
    folder: pathlib.Path | None,
    about: Mapping[str, Any] | None = None,
  ):
    self._options: dict[str, Any] = dict(
      eps=eps,
      norm=norm,
      version=version,
      attacks={k: dict(v) for k, v in attacks.items()} if attacks else None,
      batch_size=batch_size,
      individual=individual,
      save_adversarial=save_adversarial,
    )
    self._prefix = prefix or f'{version}_{norm.lower()}'
    self._limit, self._batches = limit, batches
    self._folder, self._about = folder, dict(about or {})
    # Made now, so that a mistake in it is found before the evaluation.
    self._entry = robustbench_lib.entry(robustbench) if robustbench else None
    self._network = functools.partial(
      float32_logits, model.clone(dtype='float32')
    )
    self._search = None
    if search_dtype:
      self._search = functools.partial(
        float32_logits, model.clone(dtype=search_dtype)
      )

  def __call__(self, variables: Any, key: jax.Array) -> dict[str, float]:
    """Attacks the split, or the images that are left of it.

    Raises:
      UserError: The split is empty, or the folder holds another evaluation.
    """
    split = images(self._batches(), self._limit)
    bind = lambda f: jax.tree_util.Partial(f, variables)
    outcome = autoattack_lib.autoattack(
      bind(self._network),
      split['image'],
      split['label'],
      ids=split['id'],
      key=key,
      search=bind(self._search) if self._search else None,
      folder=self._folder,
      about=self._about,
      log=LOGGER.info,
      **self._options,
    )
    if self._folder and jax.process_index() == 0:
      self._write(self._folder, outcome)
    scores = {
      'accuracy': outcome.robust_accuracy,
      'clean_accuracy': outcome.clean_accuracy,
      'examples': float(len(outcome.clean)),
    }
    for name, record in outcome.attacks.items():
      scores[f'{name}_accuracy'] = record.robust_accuracy
    return examples_lib.named(self._prefix, scores)

  def _write(self, folder: pathlib.Path, outcome: Outcome) -> None:
    """Writes the optional files beside the result."""
    if self._options['save_adversarial']:
      np.save(folder / 'ids.npy', outcome.ids)
    if self._entry:
      robustbench_lib.write(folder, self._entry, outcome, self._about)


def images(batches: Any, limit: int | None) -> dict[str, np.ndarray]:
  """Returns a split's `image` (uint8), `label` and `id`, without padding.

  All of its images, also if several processes read a share each.

  Raises:
    UserError: It has none.
  """
  rows: dict[str, list[np.ndarray]] = {'image': [], 'label': [], 'id': []}
  for batch in examples_lib.first(batches, limit):
    batch = processes.rows_of_all({k: batch[k] for k in [*rows, 'mask']})
    real = batch['mask'] > 0
    for name, found in rows.items():
      found.append(batch[name][real])
  if not sum(len(x) for x in rows['label']):
    raise UserError('The split has no example to attack.')
  return {name: np.concatenate(found) for name, found in rows.items()}


def float32_logits(model: Any, variables: Any, image: jax.Array) -> jax.Array:
  """Returns a Linen module's logits (B, K), float32."""
  logits = model.apply(variables, image, train=False)['logits']
  return logits.astype(jnp.float32)
