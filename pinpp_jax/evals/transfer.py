"""Accuracy of a network on adversarial examples found against another."""

import pathlib
from typing import Any

import jax
import numpy as np

from pinpp_jax.errors import UserError
from pinpp_jax.evals import examples as examples_lib
from pinpp_jax.evals.autoattack.chunks import as_float
from pinpp_jax.evals.robustness import float32_logits, images

CHUNK = 64

_logits = jax.jit(float32_logits, static_argnums=0)


class Transfer:
  """Accuracy on adversarial examples that were found against another network.

  Called with (variables, key), returns `<prefix>_accuracy`, the share of the
  examples that this network classifies right, and `<prefix>_clean_accuracy` on
  the same images without attack.

  Args:
    path: Folder of an evaluation with `save_adversarial`.
    prefix: Names the scores.
    model: Linen module; evaluated in float32.
    batches: Makes a fresh iterator of evaluation batches (numpy), of the split
      that the other network was attacked on.
  """

  def __init__(
    self,
    *,
    path: str,
    prefix: str = 'transfer',
    model: Any,
    batches: examples_lib.Batches,
  ):
    self._path, self._prefix = pathlib.Path(path).expanduser(), prefix
    self._model, self._batches = model.clone(dtype='float32'), batches

  def __call__(self, variables: Any, key: jax.Array) -> dict[str, float]:
    """Goes through the split once.

    Raises:
      UserError: The folder has no examples, or none of this split.
    """
    del key
    found, ids = _examples(self._path)
    split = images(self._batches(), None)
    place = {int(image): i for i, image in enumerate(split['id'])}
    pairs = [
      (there, place[int(image)])
      for there, image in enumerate(ids)
      if int(image) in place and np.isfinite(found[there]).all()
    ]
    if not pairs:
      raise UserError(
        f'No adversarial example of {self._path} belongs to this split:'
        ' evaluate on the split that was attacked.'
      )
    there, here = np.transpose(pairs)
    right = lambda image: self._right(variables, image, split['label'][here])
    scores = {
      'accuracy': right(found[there]),
      'clean_accuracy': right(as_float(split['image'][here])),
      'examples': float(len(pairs)),
    }
    return examples_lib.named(self._prefix, scores)

  def _right(self, variables, image: np.ndarray, label: np.ndarray) -> float:
    """Returns the share of images that are classified as their labels."""
    right = 0
    for start in range(0, len(image), CHUNK):
      rest = image[start : start + CHUNK]
      # Padded, so that only one program is compiled.
      padded = rest[np.resize(np.arange(len(rest)), CHUNK)]
      best = np.argmax(_logits(self._model, variables, padded), -1)
      right += (best[: len(rest)] == label[start : start + CHUNK]).sum()
    return float(right / len(image))


def _examples(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  paths = folder / 'adversarial.npy', folder / 'ids.npy'
  for path in paths:
    if not path.is_file():
      raise UserError(
        f'{path} does not exist: give the folder of a finished evaluation with'
        ' save_adversarial=True.'
      )
  return np.load(paths[0], mmap_mode='r'), np.load(paths[1])
