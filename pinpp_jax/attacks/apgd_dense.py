"""APGD's rule for L-inf and L2: dense steps with momentum."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pinpp_jax.attacks import hyperplanes, norms

MOMENTUM = 0.75
TINY = 1e-12


class Control(NamedTuple):
  """The rule's state for each image."""

  previous: jax.Array  # (B, H, W, C), the iterate before the last move
  step_size: jax.Array  # (B,)
  last_loss: jax.Array  # (B,)
  rises: jax.Array  # (B,), steps in which the loss rose since the checkpoint
  checked_loss: jax.Array  # (B,), the best loss at the last checkpoint
  reduced: jax.Array  # (B,), whether that checkpoint halved the step


class Dense(NamedTuple):
  """Croce & Hein, arXiv:2003.01690, algorithm 1, as in their code."""

  norm: str
  rho: float

  def windows(self, steps: int) -> list[int]:
    """Returns for each step 0, or the number of steps its checkpoint covers."""
    window, shrink, shortest = (
      max(int(part * steps), 1) for part in (0.22, 0.03, 0.06)
    )
    result, waited = [], 0
    for _ in range(steps):
      waited += 1
      result.append(window if waited == window else 0)
      if waited == window:
        window, waited = max(window - shrink, shortest), 0
    return result

  def phases(self, steps: int) -> list[tuple[float, int]]:
    """Returns (radius in units of eps, steps) of each phase."""
    return [(1.0, steps)]

  def random_start(
    self, keys: jax.Array, image: jax.Array, eps: float | jax.Array
  ) -> jax.Array:
    """Returns points on the surface of each image's ball, then clipped."""
    shape, dtype = image.shape[1:], image.dtype
    if self.norm == 'linf':
      draw = lambda key: jax.random.uniform(key, shape, dtype, -1, 1)
      noise = jax.vmap(draw)(keys)
      size = hyperplanes.length('linf', noise)
      unit = noise / (size + TINY)
    else:
      draw = lambda key: jax.random.normal(key, shape, dtype)
      unit = normalise(jax.vmap(draw)(keys))
    return jnp.clip(image + eps * unit, 0, 1)

  def enter(self, x: jax.Array, image: jax.Array, eps: jax.Array) -> jax.Array:
    """Returns the point near `x` from which a phase starts."""
    return jnp.clip(x, 0, 1)

  def begin(
    self, x: jax.Array, image: jax.Array, loss: jax.Array, eps: jax.Array
  ) -> Control:
    """Returns the state at the start `x` with loss `loss`."""
    return Control(
      previous=x,
      step_size=jnp.full(loss.shape, 2 * eps, x.dtype),
      # Zero, not the start's loss, as in the authors' code.
      last_loss=jnp.zeros_like(loss),
      rises=jnp.zeros(loss.shape, jnp.int32),
      checked_loss=loss,
      reduced=jnp.ones(loss.shape, bool),
    )

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
    share = jnp.where(first, 1, MOMENTUM).astype(x.dtype)
    drift = x - control.previous
    step = control.step_size[:, None, None, None]
    linf = self.norm == 'linf'
    direction = jnp.sign(gradient) if linf else normalise(gradient)
    moved = self._project(x + step * direction, image, eps)
    mixed = x + (moved - x) * share + drift * (1 - share)
    return self._project(mixed, image, eps), control._replace(previous=x)

  def _project(self, x, image, eps):
    if self.norm == 'linf':
      return norms.project('linf', x, image, eps)
    # The authors' constants, so that iterates agree to the last digits.
    delta = x - image
    length = jnp.minimum(eps, _length(delta))
    return jnp.clip(image + normalise(delta) * length, 0, 1)

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
    rises = control.rises + (loss > control.last_loss)
    jump = oscillates(rises, window, self.rho)
    jump |= stalls(control, best_loss)
    check = window > 0
    jump &= check
    step_size = jnp.where(jump, control.step_size / 2, control.step_size)
    return Control(
      # Not changed by a jump, as in the authors' code.
      previous=control.previous,
      step_size=step_size,
      last_loss=loss,
      rises=jnp.where(check, 0, rises),
      checked_loss=jnp.where(check, best_loss, control.checked_loss),
      reduced=jnp.where(check, jump, control.reduced),
    ), jump


def oscillates(rises: jax.Array, window: jax.Array, rho: float) -> jax.Array:
  """Returns where the loss rose in too few of the last `window` steps."""
  return rises <= rho * window


def stalls(control: Control, best_loss: jax.Array) -> jax.Array:
  """Returns where the step was not halved and the best loss did not rise."""
  return ~control.reduced & (control.checked_loss >= best_loss)


def normalise(x: jax.Array) -> jax.Array:
  """Returns each image divided by its L2 norm; zeros stay zeros."""
  return x / (_length(x) + TINY)


def _length(x):
  return hyperplanes.length('l2', x)
