"""Threat models: projection, steepest direction and random start in a ball.

Every ball is intersected with the box [0, 1] of valid images.
"""

import jax
import jax.numpy as jnp

from pinpp_jax.errors import UserError

NORMS = ('linf', 'l2')


def check(norm: str) -> None:
  """Raises UserError for a norm that is not known."""
  if norm not in NORMS:
    raise UserError(f'norm={norm!r} of an attack is not one of {NORMS}.')


def project(
  norm: str, x: jax.Array, image: jax.Array, eps: float | jax.Array
) -> jax.Array:
  """Returns a point of the ball around `image` and of the box near `x`.

  For linf the nearest one; for l2 the ball's nearest point, clipped to the
  box, which brings it no further from the image. (B, H, W, C) each.
  """
  if norm == 'linf':
    low, high = jnp.maximum(image - eps, 0), jnp.minimum(image + eps, 1)
    return jnp.clip(x, low, high)
  delta = x - image
  length = _length(delta)
  delta = delta * jnp.minimum(1, eps / jnp.where(length > 0, length, 1))
  return jnp.clip(image + delta, 0, 1)


def steepest(norm: str, gradient: jax.Array) -> jax.Array:
  """Returns the direction of length 1 that raises a loss fastest.

  Zero where the gradient is zero, for linf by pixel, for l2 by image.
  """
  if norm == 'linf':
    return jnp.sign(gradient)
  # Scaled first, so that squares neither overflow nor vanish.
  largest = jnp.max(jnp.abs(gradient), axis=(1, 2, 3), keepdims=True)
  scaled = gradient / jnp.where(largest > 0, largest, 1)
  length = _length(scaled)
  return scaled / jnp.where(length > 0, length, 1)


def random_start(
  norm: str, keys: jax.Array, image: jax.Array, eps: float | jax.Array
) -> jax.Array:
  """Returns a point drawn uniformly from each image's ball, then clipped.

  Args:
    norm: 'linf' or 'l2'.
    keys: (B,) typed keys, one per image.
    image: (B, H, W, C) in [0, 1].
    eps: Radius.
  """
  shape, dtype = image.shape[1:], image.dtype
  if norm == 'linf':
    draw = lambda key: jax.random.uniform(key, shape, dtype, -1, 1)
    return jnp.clip(image + eps * jax.vmap(draw)(keys), 0, 1)
  # A random direction, and a radius by the ball's volume.
  split = jax.vmap(lambda key: jax.random.split(key))(keys)
  normal = lambda key: jax.random.normal(key, shape, dtype)
  direction = steepest(norm, jax.vmap(normal)(split[:, 0]))
  uniform = lambda key: jax.random.uniform(key, (1, 1, 1), dtype)
  radius = jax.vmap(uniform)(split[:, 1]) ** (1 / image[0].size)
  return jnp.clip(image + eps * radius * direction, 0, 1)


def _length(x: jax.Array) -> jax.Array:
  return jnp.sqrt(jnp.sum(jnp.square(x), axis=(1, 2, 3), keepdims=True))
