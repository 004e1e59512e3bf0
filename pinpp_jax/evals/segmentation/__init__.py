"""Segmentation of parts and objects: confusion counts and scores."""

from pinpp_jax.evals.segmentation.evaluator import Segmentation

__all__ = ['Segmentation']
