"""Projected gradient ascent on the cross entropy (Madry et al., 2018)."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pinpp_jax.attacks import losses, norms
from pinpp_jax.errors import UserError

BEST = ('last', 'example', 'batch')

# Inside a while loop, XLA's CPU backend compiles the input gradient of a
# convolution to a naive loop nest, 10 times slower. So short attacks are
# unrolled there. Elsewhere a loop means one set of convolutions to compile and
# tune, whatever the number of steps.
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
    restarts: Number of random starts. An image keeps the first result that is
      misclassified, or the last restart's. Each restart after the first costs
      one more forward pass, also for images already broken. The first uses an
      image's key unchanged, so more restarts break no fewer images.
  """

  eps: float
  step_size: float | jax.Array
  steps: int
  norm: str = 'linf'
  random_start: bool = True
  best: str = 'last'
  restarts: int = 1

  def __post_init__(self):
    norms.check(self.norm)
    if self.best not in BEST:
      raise UserError(f'best={self.best!r} of pgd is not one of {BEST}.')
    if self.restarts < 1 or (self.restarts > 1 and not self.random_start):
      raise UserError(
        f'restarts={self.restarts} of pgd must be at least 1, and above 1 only'
        ' with random_start=True.'
      )

  def __call__(
    self,
    keys: jax.Array,
    predict: Callable[[jax.Array], Any],
    image: jax.Array,
    label: Any,
  ) -> jax.Array:
    """Returns adversarial images (B, H, W, C); see the package's docstring."""

    def attempt(keys):
      start = image
      if self.random_start:
        start = norms.random_start(self.norm, keys, image, self.eps)
      return self.ascend(start, predict, image, label)

    def again(carry):
      number, x = carry
      broken = self.misclassified(predict(x), label)[:, None, None, None]
      other = attempt(jax.vmap(jax.random.fold_in, (0, None))(keys, number))
      return number + 1, jnp.where(broken, x, other)

    x = attempt(keys)
    if self.restarts == 1:
      return x
    carry = jnp.ones((), jnp.int32), x
    return repeat(self.restarts - 1, again, carry, each=self.steps)[1]

  def objective(self, outputs: Any, label: Any) -> jax.Array:
    """Returns the loss that the steps raise, (B,), from `predict`'s outputs."""
    return losses.cross_entropy(outputs, label)

  def misclassified(self, outputs: Any, label: Any) -> jax.Array:
    """Returns which images are misclassified, (B,) bool; NaN counts as such."""
    if label.ndim == outputs.ndim:
      label = jnp.argmax(label, axis=-1)
    right = jnp.argmax(outputs, axis=-1) == label
    return ~(right & jnp.isfinite(outputs).all(-1))

  def ascend(
    self,
    start: jax.Array,
    predict: Callable[[jax.Array], Any],
    image: jax.Array,
    label: Any,
  ) -> jax.Array:
    """Returns the images after all steps from `start`, a point in the ball."""
    step_size = jnp.asarray(self.step_size, image.dtype)

    def losses_of(x):
      return self.objective(predict(x), label)

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


def repeat(
  steps: int, body: Callable[[Any], Any], carry: Any, each: int = 1
) -> Any:
  """Returns body applied `steps` times, unrolled or as a loop.

  Args:
    steps: Number of applications.
    body: Maps a carry to the next.
    carry: The first carry.
    each: Attack steps inside one `body`.
  """
  if jax.default_backend() == 'cpu' and steps * each <= CPU_UNROLLED_STEPS:
    for _ in range(steps):
      carry = body(carry)
    return carry
  return jax.lax.fori_loop(0, steps, lambda _, carry: body(carry), carry)
