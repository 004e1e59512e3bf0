"""Argument checks for a robustness evaluation."""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax.errors import UserError

NORMS = ('linf', 'l2', 'l1')


def count_classes(
  predict: Callable[..., jax.Array], images: np.ndarray, random: bool
) -> int:
  """Returns K; `random` networks are called with (images, keys).

  Raises:
    UserError: `predict` does not return (B, K) float32 with K >= 2.
  """
  image = jax.ShapeDtypeStruct((2, *images.shape[1:]), jnp.float32)
  given = [image]
  if random:
    given.append(jax.eval_shape(lambda: jax.random.split(jax.random.key(0))))
  logits = jax.eval_shape(predict, *given)
  shape = getattr(logits, 'shape', None)
  if shape is None or len(shape) != 2 or shape[0] != 2:
    raise UserError(
      'predict must return logits (B, K); for two images it returned'
      f' {shape or type(logits).__name__}.'
    )
  if logits.dtype not in (jnp.float32, jnp.float64):
    raise UserError(
      f'predict returns {logits.dtype} logits, which have too many ties: return'
      ' float32. A network in lower precision can be given as search=.'
    )
  if shape[1] < 2:
    raise UserError(
      'predict returns one logit per image; it must return two or more.'
    )
  return shape[1]


def check_data(images: np.ndarray, labels: np.ndarray, ids: np.ndarray) -> None:
  """Raises UserError for arrays that are not images and their labels."""
  if images.ndim != 4 or not len(images):
    raise UserError(
      f'images have shape {images.shape}; they must be (N, H, W, C), N > 0.'
    )
  if labels.shape != images.shape[:1] or labels.dtype.kind not in 'iu':
    raise UserError(
      f'labels are {labels.dtype} {labels.shape}; they must be integers, one'
      f' for each of {len(images)} images.'
    )
  if ids.shape != labels.shape or len(np.unique(ids)) != len(ids):
    raise UserError('ids must be distinct, one for each image.')
  if images.dtype != np.uint8:
    if images.dtype.kind != 'f':
      raise UserError(f'images are {images.dtype}; give floats or uint8.')
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
      raise UserError(
        f'images have values from {low:g} to {high:g}; they must be in [0, 1].'
        ' Subtract the mean inside the network, not before.'
      )


def check_ball(norm: str, eps: float) -> None:
  """Raises UserError for an unknown norm or a radius that is not positive."""
  if norm not in NORMS:
    raise UserError(f'norm={norm!r} of autoattack is not one of {NORMS}.')
  if not (eps > 0 and math.isfinite(eps)):
    raise UserError(f'eps={eps} of autoattack must be finite and above 0.')


def check_labels(labels: np.ndarray, classes: int) -> None:
  """Raises UserError unless every label is one of the classes."""
  outside = np.flatnonzero((labels < 0) | (labels >= classes))
  if len(outside):
    raise UserError(
      f'{len(outside)} labels are not among the {classes} classes of the'
      f' network: image {outside[0]} has {labels[outside[0]]}.'
    )
