"""AutoAttack for any JAX function: `autoattack(predict, images, labels, ...)`.

The ensemble, its versions, its state on disk, its warnings and its result. A
single attack is in `pinpp_jax.attacks`; the evaluator that runs AutoAttack in
a recipe is `evals/robustness.py`.
"""

from pinpp_jax.evals.autoattack.ensemble import autoattack

__all__ = ['autoattack']
