"""The location prior: the most frequent part at each position, by class."""

from collections.abc import Callable, Iterable

import numpy as np

from pinpp_jax.data.labels import LabelTable
from pinpp_jax.errors import UserError
from pinpp_jax.evals import grids
from pinpp_jax.machine import processes

# Makes batches of the split with the given name, without one of the
# evaluator's own split.
Splits = Callable[..., Iterable[dict[str, np.ndarray]]]
CELLS = 64  # Largest side of the masks: 16 KiB per class and part.


def masks(
  batches: Iterable[dict[str, np.ndarray]], labels: LabelTable
) -> np.ndarray:
  """Returns (K, h, w) int32: one mask of global part ids for each class.

  At every position it has the most frequent label over the images of the class
  that have a mask (source != 0), of equals the one with the lowest id. A class
  without such images has background. The grid is that of the labels, with at
  most `CELLS` cells a side, sampled at their centres.

  Every process must call this with its part of the batches.

  Args:
    batches: Evaluation batches (numpy); padding has mask 0.
    labels: Label table the split is numbered by.

  Raises:
    UserError: If there is no batch.
  """
  table = np.zeros(0, np.int32)
  for batch in batches:
    keep = (batch['mask'] > 0) & (batch['source'] != 0)
    parts, label = batch['parts'][keep], batch['label'][keep, None, None]
    size = tuple(min(side, CELLS) for side in parts.shape[1:])
    if not table.size:
      shape = (labels.num_classes, 1 + labels.max_parts, *size)
      table = np.zeros(shape, np.int32)
    parts = grids.nearest(parts, size)
    local = np.where(parts > 0, parts - labels.first[label] + 1, 0)
    np.add.at(table, (label, local, *np.ogrid[: size[0], : size[1]]), 1)
  if not table.size:
    raise UserError(
      'The location prior needs training images, but the training split is'
      ' empty: set prior=False.'
    )
  local = processes.sum_of_all(table).argmax(1)
  ids = local + labels.first[:, None, None] - 1
  return np.where(local > 0, ids, 0).astype(np.int32)
