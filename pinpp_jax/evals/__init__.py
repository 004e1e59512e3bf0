"""Evaluators: (variables, key) to a dict of scores."""

from pinpp_jax.evals import accuracy, robustness, segmentation, transfer

EVALS = {
  'accuracy': accuracy.Accuracy,
  'autoattack': robustness.AutoAttack,
  'segmentation': segmentation.Segmentation,
  'transfer': transfer.Transfer,
}
