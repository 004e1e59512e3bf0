"""Evaluators: (variables, key) to a dict of scores."""

from pinpp_jax.evals import accuracy, robustness, transfer
from pinpp_jax.evals.segmentation import evaluator

EVALS = {
  'accuracy': accuracy.Accuracy,
  'autoattack': robustness.AutoAttack,
  'segmentation': evaluator.Segmentation,
  'transfer': transfer.Transfer,
}
