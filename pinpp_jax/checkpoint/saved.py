"""Saving and restoring with Orbax, which only this module imports.

Restoring always builds the abstract target on the present devices, so that a
checkpoint opens on any number of them. Every checkpoint has checksums of
its files; a damaged one is never read.
"""

import pathlib
import shutil
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from pinpp_jax.checkpoint import checksums
from pinpp_jax.errors import UserError


def _open(folder: pathlib.Path, keep: int) -> ocp.training.Checkpointer:
  """Returns a checkpointer that keeps the last `keep` steps in `folder`."""
  # Any: Orbax's annotations reject its own policies and pathlib's paths.
  directory: Any = folder
  policy: Any = ocp.training.preservation_policies.LatestN(keep)
  return ocp.training.Checkpointer(directory, preservation_policy=policy)


def _set_damaged_aside(folder: pathlib.Path) -> None:
  """Moves checkpoints with changed files out of `folder`, with a warning.

  Process 0 does this for all, before any of them reads the folder.
  """
  if jax.process_index() == 0:
    for step in sorted(folder.glob('[0-9]*')):
      damage = checksums.damage(step) if step.name.isdigit() else ''
      if damage:
        aside = folder.parent / 'damaged' / f'{folder.name}-{step.name}'
        aside.parent.mkdir(exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        step.rename(aside)
        logging.warning(
          '%s is damaged (%s): moved to %s and not used.',
          step,
          damage,
          aside,
        )
  multihost_utils.sync_global_devices('damaged checkpoints are set aside')


def _save(
  checkpointer: ocp.training.Checkpointer,
  step: int,
  items: Any,
  metrics: Any = None,
) -> None:
  """Saves and waits until everything is written, checksums last."""
  checkpointer.save_checkpointables(step, items, force=True, metrics=metrics)
  if jax.process_index() == 0:
    checksums.write(pathlib.Path(checkpointer.directory) / str(step))


class Checkpoints:
  """The `checkpoints/` of a run: train state and data iterator, together.

  Use it as a context manager; leaving it waits for unfinished saves.
  """

  def __init__(self, workdir: pathlib.Path, keep: int = 2):
    _set_damaged_aside(workdir / 'checkpoints')
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
      _save(self._checkpointer, step, items)

  def restore(self, state: Any, batches: Any) -> Any:
    """Returns the newest saved state and moves `batches` to where it was.

    Args:
      state: The run's initial state: gives structure, shapes and shardings, and
        is returned if nothing is saved.
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
    _set_damaged_aside(workdir / 'best')
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
      items = {'variables': variables}
      _save(self._checkpointer, step, items, {'score': score})


def load_best(workdir: pathlib.Path, sharding: jax.sharding.Sharding) -> Any:
  """Returns the averaged variables of a run's best evaluation.

  Raises:
    UserError: If the run has kept none yet, or they are damaged.
  """
  folder = workdir / 'best'
  if not folder.is_dir():
    raise UserError(
      f'{workdir} is not the folder of a trained run: it has no best/.'
    )
  with _open(folder, 1) as checkpointer:
    if checkpointer.latest is None:
      raise UserError(
        f'{folder} is empty: the run has not been evaluated yet. Resume it with'
        ' the command that started it.'
      )
    step = checkpointer.latest.step
    damage = checksums.damage(folder / str(step))
    if damage:
      raise UserError(
        f'{folder / str(step)} is damaged: {damage}. Restore it from a copy, or'
        ' train again in another --workdir.'
      )
    saved = checkpointer.checkpointables_metadata(step)
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
