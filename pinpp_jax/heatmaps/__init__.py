"""Heat maps against part masks: numpy alone, for anyone's heat maps."""

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
