"""Saving and restoring with Orbax, which only this module knows.

Restoring always builds the abstract target on the devices at hand, so that a
checkpoint opens on any number of them.
"""

import pathlib
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from pinpp_jax.errors import UserError


def _open(folder: pathlib.Path, keep: int) -> ocp.training.Checkpointer:
  """Returns a checkpointer that keeps the last `keep` steps in `folder`."""
  # Orbax's own annotations refuse its own policies and pathlib's paths.
  directory: Any = folder
  policy: Any = ocp.training.preservation_policies.LatestN(keep)
  return ocp.training.Checkpointer(directory, preservation_policy=policy)


class Checkpoints:
  """The `checkpoints/` of a run: train state and data iterator, together.

  Use it as a context manager; leaving it waits for a save under way.
  """

  def __init__(self, workdir: pathlib.Path, keep: int = 2):
    self._checkpointer = _open(workdir / 'checkpoints', keep)

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *_):
    self._checkpointer.close()

  @property
  def step(self) -> int:
    """Returns the newest saved step, 0 when there is none."""
    latest = self._checkpointer.latest
    return latest.step if latest else 0

  def save(self, step: int, state: Any, batches: Any) -> None:
    """Saves `state` and the iterator; does nothing if `step` is saved."""
    if self.step != step:
      items = {'state': state, 'batches': batches}
      self._checkpointer.save_checkpointables(step, items, force=True)

  def restore(self, state: Any, batches: Any) -> Any:
    """Returns the newest saved state and moves `batches` to where it was.

    Args:
      state: The run's initial state: structure, shapes, shardings, and the
        answer when nothing is saved.
      batches: Checkpointable iterator, changed in place.

    Raises:
      UserError: If the saved tree does not fit `state`.
    """
    if not self.step:
      return state
    items = {'state': _abstract(state), 'batches': batches}
    try:
      return self._checkpointer.load_checkpointables(None, items)['state']
    except (KeyError, ValueError) as error:
      raise UserError(
        f'The checkpoint of step {self.step} in'
        f' {self._checkpointer.directory} does not fit this model and'
        f' optimiser; use another --workdir. ({_first_line(error)})'
      ) from error


class Best:
  """The `best/` of a run: averaged variables of its best evaluation."""

  def __init__(self, workdir: pathlib.Path):
    self._checkpointer = _open(workdir / 'best', 1)

  def __enter__(self) -> 'Best':
    return self

  def __exit__(self, *_):
    self._checkpointer.close()

  @property
  def step(self) -> int:
    """Returns the step of the best evaluation, 0 before the first."""
    latest = self._checkpointer.latest
    return latest.step if latest else 0

  @property
  def score(self) -> float:
    """Returns the best score so far, minus infinity before the first."""
    latest: Any = self._checkpointer.latest
    return latest.metrics['score'] if latest else float('-inf')

  def offer(self, step: int, score: float, variables: Any) -> None:
    """Keeps `variables` if `score` beats all before it."""
    if score > self.score:
      self._checkpointer.save_checkpointables(
        step, {'variables': variables}, force=True, metrics={'score': score}
      )


def load_best(workdir: pathlib.Path, sharding: jax.sharding.Sharding) -> Any:
  """Returns the averaged variables of a run's best evaluation.

  Raises:
    UserError: If the run has kept none yet.
  """
  folder = workdir / 'best'
  if not folder.is_dir():
    raise UserError(f'{workdir} is not the folder of a run: it has no best/.')
  with _open(folder, 1) as checkpointer:
    if checkpointer.latest is None:
      raise UserError(f'{folder} is empty: the run was not evaluated yet.')
    saved = checkpointer.checkpointables_metadata(checkpointer.latest.step)
    variables = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
      saved.metadata['variables'],
    )
    items = checkpointer.load_checkpointables(None, {'variables': variables})
  return items['variables']


def _abstract(tree: Any) -> Any:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
    tree,
  )


def _first_line(error: Exception) -> str:
  return str(error).strip().split('\n', 1)[0][:200]
