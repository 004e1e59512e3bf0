"""Scores of heat maps against part masks. Needs numpy alone."""

from pinpp_jax.heatmaps.scores import (
  THRESHOLDS,
  Scores,
  Tally,
  average_precision,
  iou,
  mass,
  mean,
  pointing,
  resize,
)

__all__ = [
  'THRESHOLDS',
  'Scores',
  'Tally',
  'average_precision',
  'iou',
  'mass',
  'mean',
  'pointing',
  'resize',
]
