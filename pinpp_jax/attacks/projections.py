"""Nearest points of sets that have no closed form, without sorting."""

import jax
import jax.numpy as jnp


def l1(x: jax.Array, image: jax.Array, eps: float | jax.Array) -> jax.Array:
  """Returns the nearest point with L1 distance <= eps to `image`, in the box.

  The nearest in the Euclidean sense, of the intersection of the ball and
  [0, 1]: with a change of sizes a and room c up to the box, sizes become
  clip(a - t, 0, min(a, c)), with the smallest t >= 0 that fits the ball
  (Croce & Hein, arXiv:2103.01208). Unchanged where x is inside already.

  Args:
    x: (B, H, W, C), anywhere.
    image: (B, H, W, C) in [0, 1].
    eps: Radius of the ball, a scalar.
  """
  delta = x - image
  size = jnp.abs(delta)
  cap = jnp.minimum(size, jnp.where(delta > 0, 1 - image, image))
  shrunk = jnp.minimum(jnp.maximum(size - _cut(size, cap, eps), 0), cap)
  # The sum below may round to an ulp outside.
  moved = jnp.clip(image + jnp.sign(delta) * shrunk, 0, 1)
  return jnp.where(eps > 0, moved, image)


def _cut(size, cap, eps):
  """Returns the smallest t >= 0 with sum(clip(size - t, 0, cap)) <= eps."""

  def excess(t):
    return _sum(jnp.minimum(jnp.maximum(size - t, 0), cap)) - eps

  def halve(_, bracket):
    low, high = bracket
    middle = (low + high) / 2
    above = excess(middle) > 0
    return jnp.where(above, middle, low), jnp.where(above, high, middle)

  high = jnp.max(size, axis=(1, 2, 3), keepdims=True)
  # As many halvings as there are bits, and a few.
  halvings = jnp.finfo(size.dtype).nmant + 8
  low, high = jax.lax.fori_loop(
    0, halvings, halve, (jnp.zeros_like(high), high)
  )
  # The sum falls linearly in the bracket, by one for each size that is
  # neither zero nor at its cap there: one step of Newton's method ends on t.
  slope = _sum((size >= high) & (size - cap <= low))
  newton = low + excess(low) / jnp.maximum(slope, 1).astype(size.dtype)
  t = jnp.where(slope > 0, jnp.clip(newton, low, high), high)
  return jnp.where(excess(jnp.zeros_like(t)) > 0, t, 0)


def _sum(x):
  return jnp.sum(x, axis=(1, 2, 3), keepdims=True)
