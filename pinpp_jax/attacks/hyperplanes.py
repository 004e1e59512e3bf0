"""Nearest points on a hyperplane inside the box [0, 1], without sorting.

The projections of FAB (Croce & Hein, 2020, arXiv:1907.02044, section 3.1) for
a batch of rows. The original sorts every row; here the one number that
determines a solution is found by passes over the data.
"""

import jax
import jax.numpy as jnp

NORMS = ('linf', 'l2', 'l1')

# For l2 and l1, coordinates whose normal is smaller do not move.
SMALLEST = 1e-8
# A bound for adversarial data; 150,528 random numbers take 3 to 17 steps.
NEWTON_STEPS = 100


def project(
  norm: str, point: jax.Array, normal: jax.Array, excess: jax.Array
) -> jax.Array:
  """Returns the shortest moves onto hyperplanes, inside the box.

  If the box does not meet the hyperplane, the move goes as near as the box
  allows. Among coordinates of equal normal, an l1 move is shared in proportion
  to the distance to the box; all such moves are equally short.

  Args:
    norm: Norm that is minimised: 'linf', 'l2' or 'l1'.
    point: (B, ...) in [0, 1].
    normal: w, (B, ...).
    excess: (B,), w.point - b: how far above the hyperplane w.u = b.

  Returns:
    Moves of `point`'s shape: 0 <= point + move <= 1 up to rounding.
  """
  shape = point.shape
  # As rows, because sums over one axis are fast: see `total`.
  point, normal = (x.reshape(shape[0], -1) for x in (point, normal))
  excess = excess[:, None]
  direction = jnp.sign(normal) * jnp.where(excess < 0, -1, 1)
  excess, size = jnp.abs(excess), jnp.abs(normal)
  room = jnp.where(direction < 0, 1 - point, point)
  if norm == 'l1':
    move = _greedy(size, room, excess)
  else:
    rate = jnp.where(size > SMALLEST, size, 0)
    if norm == 'linf':
      rate = (size > 0).astype(size.dtype)
    move = jnp.minimum(_level(size, rate, room, excess) * rate, room)
  unreachable = _sum(size * room) <= excess
  move = jnp.where(unreachable, jnp.where(size > 0, room, 0), move)
  return (-direction * move).reshape(shape)


def length(norm: str, x: jax.Array) -> jax.Array:
  """Returns each row's norm with all axes kept, (B, 1, ...)."""
  size = jnp.abs(x)
  if norm == 'linf':
    found = jnp.max(size.reshape(len(x), -1), axis=1)
  else:
    found = total(size) if norm == 'l1' else jnp.sqrt(total(jnp.square(x)))
  return found.reshape(-1, *[1] * (x.ndim - 1))


def total(x: jax.Array) -> jax.Array:
  """Returns each row's sum, (B,)."""
  # XLA's CPU backend adds up one axis 10 times faster than three.
  return jnp.sum(x.reshape(len(x), -1), axis=1)


def _level(size, rate, room, excess):
  """Returns L >= 0 with sum(size * min(L * rate, room)) = excess.

  Newton's method from 0. The sum is concave and piecewise linear in L, so the
  steps never pass the solution and the last one is exact. A row that has
  converged stays the same while others go on.
  """
  gain, full = size * rate, size * room

  def newton(level):
    free = level * rate < room
    slope = _sum(jnp.where(free, gain, 0))
    rest = excess - _sum(jnp.where(free, 0, full))
    following = rest / jnp.where(slope > 0, slope, 1)
    return jnp.where(slope > 0, jnp.maximum(following, level), level)

  def going(state):
    steps, level, previous = state
    return (steps < NEWTON_STEPS) & jnp.any(level > previous)

  def step(state):
    steps, level, _ = state
    return steps + 1, newton(level), level

  zero = jnp.zeros_like(excess)
  return jax.lax.while_loop(going, step, (0, newton(zero), zero))[1]


def _greedy(size, room, excess):
  """Returns the moves that use up room where the normal is largest.

  Coordinates above a threshold move fully, those at the threshold in part. The
  threshold is a value of `size`; bisection of its bit pattern, which has the
  same order as non-negative floats, finds it exactly.
  """
  integer = jnp.dtype(f'int{size.dtype.itemsize * 8}')
  bits = jax.lax.bitcast_convert_type(size, integer)
  full = size * room

  def halve(_, bracket):
    low, high = bracket
    middle = low + (high - low) // 2
    enough = _sum(jnp.where(bits >= middle, full, 0)) > excess
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  high = jnp.max(bits, axis=1, keepdims=True) + 1
  bracket = jnp.zeros_like(high), high
  threshold, _ = jax.lax.fori_loop(0, integer.itemsize * 8, halve, bracket)
  rest = excess - _sum(jnp.where(bits > threshold, full, 0))
  last = _sum(jnp.where(bits == threshold, full, 0))
  part = jnp.clip(rest / jnp.where(last > 0, last, 1), 0, 1)
  move = jnp.where(bits > threshold, room, room * part)
  return jnp.where((bits >= threshold) & (size > SMALLEST), move, 0)


def _sum(x):
  return jnp.sum(x, axis=1, keepdims=True)
