"""The state of an evaluation by several attacks, kept on disk."""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
from typing import Any

import numpy as np

from pinpp_jax.errors import UserError

FILE = 'state.npz'
ADVERSARIAL = 'adversarial.npy'


@dataclasses.dataclass(kw_only=True)
class Verdicts:
  """The state of N images under A attacks.

  Attributes:
    seen: (N,) bool, whether the clean image was classified.
    clean: (N,) bool, whether it was classified right.
    robust: (A, N) bool, False where the attack broke the image.
    stage: Number of the current round, counted over all attacks.
    done: (N,) bool, which images have finished this round.
    refused: (A,) int, successes outside the ball or the box.
    unconfirmed: (A,) int, points that are classified right when checked, and
      images that are misclassified without having changed.
    attacked: (A,) int, images times rounds.
    seconds: (A,) float, wall time.
    probe: (P, K) float32, logits of the first images: the network's identity.
  """

  seen: np.ndarray
  clean: np.ndarray
  robust: np.ndarray
  stage: int
  done: np.ndarray
  refused: np.ndarray
  unconfirmed: np.ndarray
  attacked: np.ndarray
  seconds: np.ndarray
  probe: np.ndarray

  @classmethod
  def none(cls, images: int, attacks: int, probe: np.ndarray) -> 'Verdicts':
    """Returns the state before the clean pass."""
    return cls(
      seen=np.zeros(images, bool),
      clean=np.zeros(images, bool),
      robust=np.ones((attacks, images), bool),
      stage=0,
      done=np.zeros(images, bool),
      refused=np.zeros(attacks, np.int64),
      unconfirmed=np.zeros(attacks, np.int64),
      attacked=np.zeros(attacks, np.int64),
      seconds=np.zeros(attacks),
      probe=probe,
    )

  @classmethod
  def of(cls, arrays: Mapping[str, Any]) -> 'Verdicts':
    """Returns the state with these `arrays`."""
    return cls(**{**arrays, 'stage': int(arrays['stage'])})

  @property
  def arrays(self) -> dict[str, Any]:
    """Returns all fields by name."""
    return dataclasses.asdict(self) | {'stage': np.asarray(self.stage)}

  def standing(self, attacks: int | None = None) -> np.ndarray:
    """Returns (N,) bool, robust to the first `attacks`; None for all."""
    return self.clean & self.robust[:attacks].all(0)


class Store:
  """Keeps the verdicts in a folder, or not at all.

  The folder belongs to one evaluation, which `identity` describes.
  """

  def __init__(self, folder: pathlib.Path | None, identity: dict[str, Any]):
    # As it is read back from a file.
    self._folder, self._identity = folder, json.loads(json.dumps(identity))

  @contextlib.contextmanager
  def held(self):
    """Creates the folder and locks it against another process.

    Raises:
      UserError: Another process holds the lock.
    """
    if self._folder is None:
      yield
      return
    self._folder.mkdir(parents=True, exist_ok=True)
    with open(self._folder / 'lock', 'w') as lock:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError as error:
        raise UserError(
          f'{self._folder} is in use by another evaluation; wait for it, or'
          ' give another folder.'
        ) from error
      yield

  def load(self, fresh: Verdicts) -> Verdicts:
    """Returns what was saved, or `fresh` if nothing was.

    Raises:
      UserError: The folder belongs to another evaluation.
    """
    if self._folder is None or not (self._folder / FILE).exists():
      return fresh
    with np.load(self._folder / FILE, allow_pickle=False) as file:
      saved = dict(file)
    before = json.loads(str(saved.pop('identity')))
    changed = [
      f'{name} was {_short(before.get(name))}, is {_short(value)}'
      for name, value in self._identity.items()
      if before.get(name) != value
    ]
    if not changed and not same_logits(saved['probe'], fresh.probe):
      changed = ['the network gives other logits']
    if changed:
      raise UserError(
        f'{self._folder} holds another evaluation: {"; ".join(changed)}.'
        ' Give another folder.'
      )
    return Verdicts.of(saved)

  def save(self, verdicts: Verdicts) -> None:
    """Replaces the saved state, atomically."""
    if self._folder is None:
      return
    identity = json.dumps(self._identity)
    partial = self._folder / (FILE + '.partial')
    with open(partial, 'wb') as file:
      np.savez(file, identity=identity, **verdicts.arrays)
      file.flush()
      os.fsync(file.fileno())
    partial.replace(self._folder / FILE)

  def adversarial(self, shape: Sequence[int]) -> np.ndarray:
    """Returns the array of adversarial images, float32, new or resumed.

    NaN marks images without one.
    """
    if self._folder is None:
      return np.full(shape, np.nan, np.float32)
    path = self._folder / ADVERSARIAL
    if path.exists() and (self._folder / FILE).exists():
      return np.lib.format.open_memmap(path, 'r+')
    partial = path.with_name('partial.npy')
    array = np.lib.format.open_memmap(partial, 'w+', np.float32, tuple(shape))
    for image in array:
      image[...] = np.nan
    array.flush()
    partial.replace(path)
    return array


def _short(value: Any) -> str:
  text = str(value)
  return text if len(text) <= 16 else text[:12] + '...'


def same_logits(before: np.ndarray, now: np.ndarray) -> bool:
  """Returns whether two sets of logits belong to the same network.

  The tolerance allows for rounding on other devices.
  """
  if before.shape != now.shape:
    return False
  scale = max(1.0, float(np.abs(before).max(initial=0)))
  return bool((np.abs(before - now) <= 1e-3 * scale).all())
