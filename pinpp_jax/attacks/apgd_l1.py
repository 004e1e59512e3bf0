"""APGD's rule for L1: sparse steps over fewer and fewer pixels, three radii."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax.attacks import hyperplanes, projections
from pinpp_jax.errors import UserError

RADII = (3.0, 2.0, 1.0)
SHRUNK = 0.95
SPARSER = 1.5
SLOWER = 1.5
SHORTEST_STEP = 10.0


class Control(NamedTuple):
  """The rule's state for each image."""

  step_size: jax.Array  # (B,)
  rank: jax.Array  # (B,), of the smallest gradient entry that a step uses
  changed: jax.Array  # (B,), coordinates changed at the last checkpoint


class Sparse(NamedTuple):
  """Croce & Hein, arXiv:2103.01208, as in their code."""

  def windows(self, steps: int) -> list[int]:
    """Returns for each step 0, or the number of steps its checkpoint covers."""
    every = max(int(0.04 * steps), 1)
    return [every * ((i + 1) % every == 0) for i in range(steps)]

  def phases(self, steps: int) -> list[tuple[float, int]]:
    """Returns (radius in units of eps, steps) of each phase."""
    early = math.ceil(0.3 * steps)
    if steps <= 2 * early:
      raise UserError(
        f"steps={steps} of apgd is too few for the three radii of norm='l1'; "
        'give 5 or more.'
      )
    return list(zip(RADII, (early, early, steps - 2 * early), strict=True))

  def random_start(
    self, keys: jax.Array, image: jax.Array, eps: float | jax.Array
  ) -> jax.Array:
    """Returns noise projected to the first phase's ball."""
    draw = lambda key: jax.random.normal(key, image.shape[1:], image.dtype)
    noisy = image + jax.vmap(draw)(keys)
    return projections.l1(noisy, image, RADII[0] * eps)

  def enter(self, x: jax.Array, image: jax.Array, eps: jax.Array) -> jax.Array:
    """Returns the point near `x` from which a phase starts."""
    return projections.l1(x, image, eps)

  def begin(
    self, x: jax.Array, image: jax.Array, loss: jax.Array, eps: jax.Array
  ) -> Control:
    """Returns the state at the start `x`."""
    changed = count_changed(x, image)
    step_size = jnp.full(loss.shape, eps, x.dtype)
    return Control(step_size, least_rank(changed, image), changed)

  def move(
    self,
    control: Control,
    x: jax.Array,
    gradient: jax.Array,
    image: jax.Array,
    eps: jax.Array,
    first: jax.Array,
  ) -> tuple[jax.Array, Control]:
    """Returns the next iterate and the state."""
    size = jnp.abs(gradient)
    least = order_statistic(size.reshape(len(size), -1), control.rank)
    sign = jnp.sign(jnp.where(size >= _wide(least), gradient, 0))
    length = hyperplanes.length('l1', sign)
    moved = x + _wide(control.step_size) * sign / (length + 1e-10)
    return projections.l1(moved, image, eps), control

  def adapt(
    self,
    control: Control,
    image: jax.Array,
    loss: jax.Array,
    best_x: jax.Array,
    best_loss: jax.Array,
    eps: jax.Array,
    window: jax.Array,
  ) -> tuple[Control, jax.Array]:
    """Returns the state, and (B,) where to return to the best iterate."""
    changed = count_changed(best_x, image)
    jump = shrinks(changed, control.changed)
    step_size = jnp.where(jump, eps, control.step_size / SLOWER)
    step_size = jnp.clip(step_size, eps / SHORTEST_STEP, eps)
    adapted = Control(step_size, least_rank(changed, image), changed)
    check = window > 0
    keep = lambda new, old: jnp.where(check, new, old)
    return jax.tree.map(keep, adapted, control), jump & check


def count_changed(x: jax.Array, image: jax.Array) -> jax.Array:
  """Returns the number of coordinates in which two images differ, (B,)."""
  return jnp.sum(x != image, axis=(1, 2, 3)).astype(x.dtype)


def least_rank(changed: jax.Array, image: jax.Array) -> jax.Array:
  """Returns the 0-based ascending rank from which coordinates move, (B,)."""
  pixels = image[0].size
  # A table, because ranks for counts that are multiples of three depend on how
  # quotients are rounded, and XLA rounds divisions by constants differently.
  share = np.arange(pixels + 1, dtype=changed.dtype) / pixels / SPARSER
  ranks = np.clip((1 - share) * pixels, 0, pixels - 1).astype(np.int32)
  return jnp.asarray(ranks)[changed.astype(jnp.int32)]


def shrinks(changed: jax.Array, before: jax.Array) -> jax.Array:
  """Returns where clearly fewer coordinates are changed than before."""
  ratio = jnp.where(before > 0, changed / jnp.maximum(before, 1), 1)
  return ratio < SHRUNK


def order_statistic(value: jax.Array, rank: jax.Array) -> jax.Array:
  """Returns each row's value of 0-based ascending rank, exactly, (B,).

  Without sorting: its bits are found from the highest down, one count per bit,
  because non-negative floats have the same order as their bits.

  Args:
    value: (B, N), not negative.
    rank: (B,) integers in [0, N).
  """
  width = value.dtype.itemsize * 8
  kind = {16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint64}[width]
  bits = jax.lax.bitcast_convert_type(value, kind)

  def settle(i, found):
    guess = found | (jnp.ones((), kind) << (width - 2 - i).astype(kind))
    below = jnp.sum(bits < guess[:, None], axis=1)
    return jnp.where(below <= rank, guess, found)

  found = jnp.zeros(value.shape[:1], kind)
  # The sign bit is never set.
  found = jax.lax.fori_loop(0, width - 1, settle, found)
  return jax.lax.bitcast_convert_type(found, value.dtype)


def _wide(x):
  return x[:, None, None, None]
