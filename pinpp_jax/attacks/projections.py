"""Projection onto the L1 ball inside the box [0, 1], without sorting."""

import jax
import jax.numpy as jnp

# Enough for bisection alone in float64.
STEPS = 80


def l1(x: jax.Array, image: jax.Array, eps: float | jax.Array) -> jax.Array:
  """Returns the Euclidean projection onto `image`'s L1 ball, within [0, 1].

  For absolute changes a, of which the box allows c, the projection has changes
  clip(a - t, 0, min(a, c)) with the smallest t >= 0 that fits the ball
  (Croce & Hein, arXiv:2103.01208). Points inside stay as they are.

  Args:
    x: (B, H, W, C), anywhere.
    image: (B, H, W, C) in [0, 1].
    eps: Radius of the ball, a scalar.
  """
  # As rows, because sums over one axis are fast: see `hyperplanes.total`.
  row = image.reshape(len(image), -1)
  delta = x.reshape(row.shape) - row
  size = jnp.abs(delta)
  cap = jnp.minimum(size, jnp.where(delta > 0, 1 - row, row))
  shrunk = jnp.minimum(jnp.maximum(size - _cut(size, cap, eps), 0), cap)
  # The sum below may round to an ulp outside.
  moved = jnp.clip(row + jnp.sign(delta) * shrunk, 0, 1)
  return jnp.where(eps > 0, moved, row).reshape(image.shape)


def _cut(size, cap, eps):
  """Returns the smallest t >= 0 with sum(clip(size - t, 0, cap)) <= eps.

  Newton's method, exact because the sum is piecewise linear in t, with
  bisection where a step would leave the bracket. A row that has converged stays
  the same while others go on.
  """
  accuracy = 8 * jnp.finfo(size.dtype).eps * eps

  def excess_and_slope(t):
    left = size - t
    excess = _sum(jnp.clip(left, 0, cap)) - eps
    return excess, _sum(((left > 0) & (left < cap)).astype(size.dtype))

  def going(state):
    steps, *_, done = state
    return (steps < STEPS) & ~jnp.all(done)

  def step(state):
    steps, t, low, high, done = state
    excess, slope = excess_and_slope(t)
    low = jnp.where(excess > 0, t, low)
    high = jnp.where(excess > 0, high, t)
    newton = t + excess / jnp.maximum(slope, 1)
    inside = (slope > 0) & (newton > low) & (newton < high)
    following = jnp.where(inside, newton, (low + high) / 2)
    arrived = jnp.abs(excess) <= accuracy
    # The last step is exact: the sum is linear from t to the solution.
    last = jnp.where(slope > 0, newton, t)
    following = jnp.where(arrived, last, following)
    following = jnp.where(done, t, following)
    return steps + 1, following, low, high, done | arrived | (following == t)

  zero = jnp.zeros_like(size[:, :1])
  fits = excess_and_slope(zero)[0] <= 0
  high = jnp.max(size, axis=1, keepdims=True)
  return jax.lax.while_loop(going, step, (0, zero, zero, high, fits))[1]


def _sum(x):
  return jnp.sum(x, axis=1, keepdims=True)
