"""Evaluators: (variables, key) to a dict of scores."""

from pinpp_jax.evals import accuracy, segmentation

EVALS = {
  'accuracy': accuracy.Accuracy,
  'segmentation': segmentation.Segmentation,
}
