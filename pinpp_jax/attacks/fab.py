"""FAB: the nearest image across the decision boundary.

Croce & Hein, 'Minimally distorted Adversarial Examples with a Fast Adaptive
Boundary Attack', 2020, arXiv:1907.02044, with the constants and the order of
AutoAttack, which calls the targeted form FAB-T.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pinpp_jax.attacks import hyperplanes, loops
from pinpp_jax.attacks.loops import Inputs
from pinpp_jax.errors import UserError

# XLA's CPU backend is slow at input gradients inside a loop: see `loops.run`.
CPU_UNROLLED_CLASSES = 10


class State(NamedTuple):
  """The state of each image in a round.

  Attributes:
    x: (B, H, W, C) current point.
    best: (B, H, W, C) nearest misclassified point so far.
    distance: (B,) of `best` from the image, infinite before the first.
    target: (B,) class whose boundary is approached.
    robust: (B,) whether the image was robust before the round.
  """

  x: jax.Array
  best: jax.Array
  distance: jax.Array
  target: jax.Array
  robust: jax.Array


class Result(NamedTuple):
  """What is known between rounds.

  Attributes:
    image: (B, H, W, C) adversarial images, else the clean ones.
    robust: (B,) whether none was found yet.
    ranking: (B, T) classes of the clean image by logit, the largest first.
  """

  image: jax.Array
  robust: jax.Array
  ranking: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class FAB:
  """Projects onto the linearised decision boundary, biased to the image.

  Returns for each image the nearest misclassified point if it is in the ball,
  else the clean image. Later rounds count only for images that are still
  robust. An image misclassified from the start is returned clean.

  Attributes:
    eps: Radius of the ball, for pixels in [0, 1]; a Python float. It decides
      success and the distance of random starts; the search ignores it.
    norm: 'linf', 'l2' or 'l1'.
    steps: Steps of a round; each costs two forward passes and, with targets,
      one backward pass to the image, without them one per class.
    restarts: Rounds per target, or in total; the first starts at the image and
      is deterministic, others start at random at half the radius.
    targeted: Whether each round approaches one class's boundary, in order of
      the clean image's logits; otherwise each step approaches the nearest.
    target_classes: Number of classes to try, if targeted.
    alpha_max: Largest weight of the projection of the clean image.
    eta: Extrapolation beyond the boundary.
    beta: Share of the distance that remains after a step back.
    loop: 'auto', 'host' or 'scan'; see `loops.run`.
  """

  eps: float
  norm: str = 'linf'
  steps: int = 100
  restarts: int = 1
  targeted: bool = True
  target_classes: int = 9
  alpha_max: float = 0.1
  eta: float = 1.05
  beta: float = 0.9
  loop: str = 'auto'

  def __post_init__(self):
    loops.check(self.loop)
    norms = hyperplanes.NORMS
    if self.norm not in norms:
      raise UserError(f'norm={self.norm!r} of fab is not one of {norms}.')

  def __call__(
    self,
    keys: jax.Array,
    predict: Callable[[jax.Array], jax.Array],
    image: jax.Array,
    label: jax.Array,
    rounds: range | None = None,
  ) -> jax.Array:
    """Returns adversarial or clean images (B, H, W, C).

    Runs only the given `rounds`, if any.

    Raises:
      UserError: There are fewer other classes than targets.
    """
    return loops.run(self, keys, predict, image, label, rounds)

  @property
  def rounds(self) -> int:
    """Returns the number of restarts of all targets."""
    return self.restarts * (self.target_classes if self.targeted else 1)

  @property
  def length(self) -> int:
    """Returns the steps of one round."""
    return self.steps

  def prepare(self, inputs: Inputs) -> Result:
    """Returns the clean images and the ranking of their classes."""
    logits = _logits(inputs, inputs.image)
    robust = jnp.argmax(logits, axis=-1) == inputs.label
    classes = logits.shape[-1]
    wanted = self.target_classes + 1 if self.targeted else 2
    if wanted > classes:
      raise UserError(
        f'target_classes={wanted - 1} of fab is too many for {classes} classes.'
      )
    _, ranking = jax.lax.top_k(logits, wanted)
    return Result(inputs.image, robust, ranking)

  def start(self, number, result: Result, inputs: Inputs) -> State:
    """Returns a round's start: the image, or random at half the radius."""
    image = inputs.image
    restart, rank = number % self.restarts, number // self.restarts
    x = image
    if self.restarts > 1:
      x = jnp.where(restart > 0, self._random_start(number, inputs), image)
    distance = jnp.full(image.shape[:1], jnp.inf, image.dtype)
    # Rank 0 is the label: images with another one are not attacked.
    target = result.ranking[:, rank + 1] if self.targeted else inputs.label
    return State(x, image, distance, target, result.robust)

  @property
  def stages(self):
    """Returns the functions of a step: one."""
    return (self.step,)

  def step(self, number, carry: State, inputs: Inputs) -> State:
    """Returns the state after one projection."""
    del number
    image, label = inputs.image, inputs.label
    x = self._move(carry, inputs)
    fooled = jnp.argmax(_logits(inputs, x), axis=-1) != label
    distance = hyperplanes.length(self.norm, x - image).reshape(-1)
    nearer = fooled & (distance < carry.distance)
    best = jnp.where(_column(nearer), x, carry.best)
    distance = jnp.where(nearer, distance, carry.distance)
    x = jnp.where(_column(fooled), image + self.beta * (x - image), x)
    return carry._replace(x=x, best=best, distance=distance)

  def active(self, carry: State) -> jax.Array:
    """Returns which images the round attacks, (B,)."""
    return carry.robust

  def finish(self, carry: State, result: Result, inputs: Inputs) -> Result:
    """Returns the result updated by what this round found in the ball."""
    del inputs
    broken = carry.robust & (carry.distance <= self.eps)
    image = jnp.where(_column(broken), carry.best, result.image)
    return result._replace(image=image, robust=result.robust & ~broken)

  def _move(self, carry: State, inputs: Inputs):
    """Returns points between the projections of `x` and of the clean image.

    The linearised boundary is w.u = w.x - df, so the current point's excess is
    df and the clean image's is df + w.(image - x): no large numbers cancel.
    """
    image, x = inputs.image, carry.x
    boundary = self._target_boundary if self.targeted else self._nearest
    df, w = boundary(carry, inputs)
    clean = df + hyperplanes.total(w * (image - x))
    d1 = hyperplanes.project(self.norm, x, w, df)
    d2 = hyperplanes.project(self.norm, image, w, clean)
    a1 = jnp.maximum(hyperplanes.length(self.norm, d1), 1e-8)
    a2 = jnp.maximum(hyperplanes.length(self.norm, d2), 1e-8)
    alpha = jnp.minimum(a1 / (a1 + a2), self.alpha_max)
    x = (x + self.eta * d1) * (1 - alpha) + (image + self.eta * d2) * alpha
    return jnp.clip(x, 0, 1)

  def _target_boundary(self, carry: State, inputs: Inputs):
    """Returns (df, w): target's logit less the label's, and its gradient."""
    logits, pull = jax.vjp(lambda x: _logits(inputs, x), carry.x)
    one_hot = lambda c: jax.nn.one_hot(c, logits.shape[-1], dtype=logits.dtype)
    along = one_hot(carry.target) - one_hot(inputs.label)
    picked = lambda c: jnp.take_along_axis(logits, c[:, None], axis=1)[:, 0]
    df = picked(carry.target) - picked(inputs.label)
    return df, pull(along)[0]

  def _nearest(self, carry: State, inputs: Inputs):
    """Returns (df, w) of the class whose linearised boundary is nearest."""
    logits, pull = jax.vjp(lambda x: _logits(inputs, x), carry.x)
    classes = logits.shape[-1]
    own = jax.nn.one_hot(inputs.label, classes, dtype=logits.dtype)
    df = logits - jnp.sum(logits * own, axis=-1, keepdims=True)
    df = jnp.where(own > 0, 1e10, df)
    dual = {'linf': 'l1', 'l2': 'l2', 'l1': 'linf'}[self.norm]

    def compare(nearest, c):
      ratio, chosen, normal = nearest
      along = jax.nn.one_hot(c, classes, dtype=logits.dtype)[None] - own
      w = pull(along)[0]
      slope = hyperplanes.length(dual, w).reshape(-1)
      this = jnp.abs(df[:, c]) / (slope + 1e-12)
      nearer = this < ratio
      normal = jnp.where(_column(nearer), w, normal)
      chosen = jnp.where(nearer, df[:, c], chosen)
      return (jnp.where(nearer, this, ratio), chosen, normal), None

    # One class after the other, so that only one gradient is in memory.
    unroll = classes <= CPU_UNROLLED_CLASSES
    unroll = unroll and jax.default_backend() == 'cpu'
    first = jnp.full_like(df[:, 0], jnp.inf), df[:, 0], jnp.zeros_like(carry.x)
    nearest, _ = jax.lax.scan(
      compare, first, jnp.arange(classes), unroll=classes if unroll else 1
    )
    return nearest[1:]

  def _random_start(self, number, inputs: Inputs):
    """Returns points at half the radius in a random direction."""
    image = inputs.image
    draw = {'linf': _uniform, 'l2': jax.random.normal, 'l1': jax.random.normal}

    def one(key):
      key = jax.random.fold_in(key, number)
      return draw[self.norm](key, image.shape[1:], image.dtype)

    noise = jax.vmap(one)(inputs.keys)
    far = noise / hyperplanes.length(self.norm, noise)
    return jnp.clip(image + 0.5 * self.eps * far, 0, 1)


def _uniform(key, shape, dtype):
  return jax.random.uniform(key, shape, dtype, -1, 1)


def _logits(inputs: Inputs, x):
  logits = inputs.network(x)
  return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _column(x):
  return x[:, None, None, None]
