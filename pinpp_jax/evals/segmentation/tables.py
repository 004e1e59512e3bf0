"""Confusion counts per level, prediction mode and resolution, and their scores.

`evaluator.Segmentation` documents the names of the scores.
"""

from collections.abc import Mapping

import numpy as np

from pinpp_jax.data.labels import LabelTable
from pinpp_jax.evals import grids
from pinpp_jax.evals.segmentation import counts
from pinpp_jax.machine import processes

Grids = Mapping[str, np.ndarray]


class Tables:
  """Counts of a split's cells: part or object, open, known or prior.

  Args:
    labels: Label table the split is numbered by.
    parts: Whether predictions are part ids, not object ids.
    bootstrap: Number of bootstrap replicates.
  """

  def __init__(self, labels: LabelTable, *, parts: bool, bootstrap: int):
    self._labels, self._parts, self._bootstrap = labels, parts, bootstrap
    self._owner = objects(labels)
    self._tables: dict[tuple[str, str, str], np.ndarray] = {}

  def add(
    self,
    truth: np.ndarray,
    predicted: Grids,
    ids: np.ndarray,
    image_size: tuple[int, ...],
  ) -> None:
    """Counts some images, on the 8-pixel grid too if labels are finer.

    Args:
      truth: (N, h, w) part ids.
      predicted: Likewise, by prediction mode: 'open', 'known', 'prior'. Every
        call must have the same modes, also for no image.
      ids: (N,) ids of the images, from which their bootstrap weights come.
      image_size: In pixels.
    """
    weights = counts.replicates(ids, self._bootstrap)
    self._add('', truth, predicted, weights)
    if truth.shape[1] > image_size[0] // 8:
      coarse = {
        how: grids.at_eighth_pixels(grid, image_size)
        for how, grid in predicted.items()
      }
      truth = grids.at_eighth_pixels(truth, image_size)
      self._add('_grid', truth, coarse, weights)

  def _add(
    self, resolution: str, truth: np.ndarray, predicted: Grids, weights
  ) -> None:
    for how, grid in predicted.items():
      levels = {'part': (truth, grid)} if self._parts else {}
      merged = self._owner[grid] if self._parts else grid
      levels['object'] = (self._owner[truth], merged)
      for level, pair in levels.items():
        name = level, how, resolution
        if name not in self._tables:
          self._tables[name] = self._empty(level)
        counts.count(self._tables[name], *pair, weights)

  def _empty(self, level: str) -> np.ndarray:
    labels = self._labels
    ids = labels.num_parts if level == 'part' else labels.num_classes
    return np.zeros((1 + self._bootstrap, 3, ids + 1), np.int64)

  def scores(self) -> dict[str, float]:
    """Returns scores and intervals by name, over all processes.

    Every process must call this at the same point.
    """
    named = {}
    for key, table in processes.sum_of_all(self._tables).items():
      for name, value in self._of_table(table, *key).items():
        named[name] = float(value[0])
        if self._bootstrap:
          low, high = np.percentile(value[1:], (2.5, 97.5))
          named |= {f'{name}_low': float(low), f'{name}_high': float(high)}
    return named

  def _of_table(
    self, table: np.ndarray, level: str, how: str, resolution: str
  ) -> dict[str, np.ndarray]:
    """Returns (1 + bootstrap,) values of a table's scores by name."""
    known = '' if how == 'open' else '_known'
    shown = known or '_open' if level == 'part' else known
    end = resolution + ('_prior' if how == 'prior' else '')
    scores = {}
    for bg in ('', '_bg'):
      used = table if bg else table[:, :, 1:]
      scores[f'{level}_miou{shown}{bg}{end}'] = counts.mean_iou(used)
      scores[f'{level}_macc{shown}{bg}{end}'] = counts.mean_accuracy(used)
      if level == 'part' or not self._parts:
        right = counts.pixel_accuracy(used)
        scores[f'pixel_accuracy{known}{bg}{end}'] = right
    if level == 'part':
      for name, mean in (
        ('miou', counts.mean_iou_per_object),
        ('macc', counts.mean_accuracy_per_object),
      ):
        value = mean(table, self._owner)
        scores[f'part_{name}{shown}_per_object{end}'] = value
    return scores


def objects(labels: LabelTable) -> np.ndarray:
  """Returns (P + 1,) int32: part id to class index + 1, 0 to 0."""
  of_parts = np.repeat(np.arange(labels.num_classes), labels.part_counts) + 1
  return np.concatenate([[0], of_parts]).astype(np.int32)
