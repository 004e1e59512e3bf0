"""How well parts and objects are segmented: confusion counts and scores."""

from pinpp_jax.evals.segmentation.evaluator import Segmentation

__all__ = ['Segmentation']
