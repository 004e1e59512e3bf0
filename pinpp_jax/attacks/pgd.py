"""Projected gradient ascent on the cross entropy (Madry et al., 2018)."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pinpp_jax.attacks import losses, norms
from pinpp_jax.errors import UserError

Predict = Callable[[jax.Array], jax.Array]

BEST = ('last', 'example', 'batch')

# XLA's CPU backend compiles the input gradient of a convolution to a naive
# loop nest when it stands inside a while loop: 10 times slower. So short
# attacks are unrolled there. Elsewhere a loop means one set of convolutions to
# compile and tune, whatever the number of steps.
CPU_UNROLLED_STEPS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGD:
  """Steps along the steepest direction, projected to the ball and to [0, 1].

  Attributes:
    eps: Radius of the ball, for pixels in [0, 1].
    step_size: Length of a step; may be a traced scalar.
    steps: Number of steps; each costs a forward and a backward pass, and the
      backward pass goes to the image only, never to the weights.
    norm: 'linf' or 'l2'.
    random_start: Start at a random point of the ball instead of the image.
    best: 'last' returns the last iterate. 'example' returns for each image
      the iterate of largest loss, the start included, at the cost of one more
      forward pass. 'batch' returns for all images the one iterate of largest
      mean loss, as the PyTorch reference does in training; only then does the
      result for an image depend on its neighbours.
  """

  eps: float
  step_size: float | jax.Array
  steps: int
  norm: str = 'linf'
  random_start: bool = True
  best: str = 'last'

  def __post_init__(self):
    norms.check(self.norm)
    if self.best not in BEST:
      raise UserError(f'best={self.best!r} of pgd is not one of {BEST}.')

  def __call__(
    self,
    keys: jax.Array,
    predict: Predict,
    image: jax.Array,
    label: jax.Array,
  ) -> jax.Array:
    """Returns adversarial images (B, H, W, C); see the package's docstring."""
    start = image
    if self.random_start:
      start = norms.random_start(self.norm, keys, image, self.eps)
    return self.ascend(start, predict, image, label)

  def ascend(
    self,
    start: jax.Array,
    predict: Predict,
    image: jax.Array,
    label: jax.Array,
  ) -> jax.Array:
    """Returns what the steps make of `start`, a point in the ball."""
    step_size = jnp.asarray(self.step_size, image.dtype)

    def losses_of(x):
      return losses.cross_entropy(predict(x), label)

    def step(x):
      """Returns the next iterate, and the losses at this one."""
      # A sum, so that each image's gradient is its own.
      total = lambda x: (lambda v: (jnp.sum(v), v))(losses_of(x))
      gradient, value = jax.grad(total, has_aux=True)(x)
      x = x + step_size * norms.steepest(self.norm, gradient)
      return norms.project(self.norm, x, image, self.eps), value

    if self.best == 'last':
      return repeat(self.steps, lambda x: step(x)[0], start)

    def keep_best(carry):
      x, *record = carry
      following, value = step(x)
      return following, *self._better(x, value, *record)

    lowest = jnp.full(start.shape[:1], -jnp.inf, jnp.float32)
    carry = (start, start, lowest)
    x, *record = repeat(self.steps, keep_best, carry)
    return self._better(x, losses_of(x), *record)[0]

  def _better(self, x, value, best_x, best_value):
    """Returns the better of two iterates with its losses."""
    if self.best == 'batch':
      value = jnp.broadcast_to(jnp.mean(value), value.shape)
    # A loss that is not finite never wins.
    better = value > best_value
    best_x = jnp.where(better[:, None, None, None], x, best_x)
    return best_x, jnp.where(better, value, best_value).astype(best_value.dtype)


def repeat(steps: int, body: Callable[[Any], Any], carry: Any) -> Any:
  """Returns body applied `steps` times, in the form the backend likes."""
  if jax.default_backend() == 'cpu' and steps <= CPU_UNROLLED_STEPS:
    for _ in range(steps):
      carry = body(carry)
    return carry
  return jax.lax.fori_loop(0, steps, lambda _, carry: body(carry), carry)
