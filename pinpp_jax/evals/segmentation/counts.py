"""Confusion counts per id, and the scores computed from them.

A table is int64 (rows, 3, ids): true positives, true cells and predicted cells
of every id. Row 0 counts every image once; further rows, if any, are bootstrap
replicates.
"""

import numpy as np

_TP, _GT, _PR = range(3)


def replicates(ids: np.ndarray, number: int) -> np.ndarray:
  """Returns int64 weights (images, 1 + number): 1, then Poisson(1) draws.

  An image's draws depend on its id alone.
  """
  weights = np.ones((len(ids), 1 + number), np.int64)
  if number:
    for row, image_id in zip(weights, ids, strict=True):
      row[1:] = np.random.default_rng(int(image_id)).poisson(1.0, number)
  return weights


def count(
  table: np.ndarray, truth: np.ndarray, pred: np.ndarray, weights: np.ndarray
) -> None:
  """Adds the cells of some images to a table, in place.

  Args:
    table: (rows, 3, ids) int64: true positives, true and predicted cells.
    truth: (N, h, w) ids.
    pred: (N, h, w) ids.
    weights: (N, rows) int64 weight of each image in each row.
  """
  right = [t[t == p] for t, p in zip(truth, pred, strict=True)]
  for row, cells in ((_TP, right), (_GT, truth), (_PR, pred)):
    per_image = np.zeros((len(truth), table.shape[2]), np.int64)
    for found, ids in zip(per_image, cells, strict=True):
      found += np.bincount(ids.ravel(), minlength=len(found))
    # Few of thousands of ids occur; only those are weighted.
    used = np.flatnonzero(per_image.any(0))
    table[:, row, used] += weights.T @ per_image[:, used]


def mean_iou(table: np.ndarray) -> np.ndarray:
  """Returns (rows,) means of IoU over ids with true or predicted cells."""
  return _mean(*_iou(table))


def mean_accuracy(table: np.ndarray) -> np.ndarray:
  """Returns (rows,) means of tp / gt over ids with true cells."""
  return _mean(*_accuracy(table))


def pixel_accuracy(table: np.ndarray) -> np.ndarray:
  """Returns (rows,) right cells over the cells whose true id is in the table.

  Zero if there is none.
  """
  tp, gt = table[:, _TP].sum(-1), table[:, _GT].sum(-1)
  return tp / np.maximum(gt, 1)


def mean_iou_per_object(table: np.ndarray, merge: np.ndarray) -> np.ndarray:
  """Returns (rows,) means over object classes of their parts' mean IoU.

  Args:
    table: As in `count`; id 0 is background, which belongs to no object.
    merge: Maps part ids to object ids; 0 to 0.
  """
  return _mean_per_object(*_iou(table), merge)


def mean_accuracy_per_object(
  table: np.ndarray, merge: np.ndarray
) -> np.ndarray:
  """Returns (rows,) means over object classes of their parts' mean tp / gt.

  Args:
    table: As in `count`; id 0 is background, which belongs to no object.
    merge: Maps part ids to object ids; 0 to 0.
  """
  return _mean_per_object(*_accuracy(table), merge)


def _iou(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  tp, gt, pred = table[:, _TP], table[:, _GT], table[:, _PR]
  return tp, gt + pred - tp


def _accuracy(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  return table[:, _TP], table[:, _GT]


def _mean(over: np.ndarray, under: np.ndarray) -> np.ndarray:
  """Returns the mean along axis 1 of over / under where under > 0, else 0."""
  ratio = over / np.maximum(under, 1)
  return ratio.sum(1) / np.maximum((under > 0).sum(1), 1)


def _mean_per_object(
  over: np.ndarray, under: np.ndarray, merge: np.ndarray
) -> np.ndarray:
  """Returns the mean over objects of `_mean` over each object's parts."""
  ratio = over[:, 1:] / np.maximum(under[:, 1:], 1)
  shape = (merge.max(initial=0) + 1, len(over))
  sums, occur = np.zeros(shape), np.zeros(shape, np.int64)
  np.add.at(sums, merge[1:], ratio.T)
  np.add.at(occur, merge[1:], (under[:, 1:] > 0).T)
  return _mean(sums.T, occur.T)
