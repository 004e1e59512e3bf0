"""Evaluators: (variables, key) to a dict of scores.

A new score of a network is a class here and a line in `EVALS`. Attacks
themselves are in `pinpp_jax.attacks`.
"""

from pinpp_jax.evals import accuracy, robustness, transfer
from pinpp_jax.evals.segmentation import evaluator

EVALS = {
  'accuracy': accuracy.Accuracy,
  'autoattack': robustness.AutoAttack,
  'segmentation': evaluator.Segmentation,
  'transfer': transfer.Transfer,
}
