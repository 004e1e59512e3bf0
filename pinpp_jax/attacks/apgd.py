"""APGD: projected gradient ascent with adaptive step sizes.

Croce & Hein, 'Reliable evaluation of adversarial robustness with an ensemble
of diverse parameter-free attacks', 2020, arXiv:2003.01690; for L1 'Mind the
box', 2021, arXiv:2103.01208. Constants and order are those of AutoAttack, so
that from one start the iterates are the same.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pinpp_jax.attacks import apgd_dense, apgd_l1, loops, losses, pgd
from pinpp_jax.attacks.loops import Inputs
from pinpp_jax.errors import UserError

NORMS = ('linf', 'l2', 'l1')
LOSSES = ('ce', 'dlr', 'targeted_dlr')


class Round(NamedTuple):
  """What stays the same for a round.

  Attributes:
    keys: (B,) typed keys.
    target: (B,) target class of a targeted loss.
    robust: (B,) whether the image was robust before the round.
  """

  keys: jax.Array
  target: jax.Array
  robust: jax.Array


class Walk(NamedTuple):
  """The state of each image's ascent.

  Attributes:
    x: (B, H, W, C) iterate from which the next move starts.
    gradient: (B, H, W, C) at `x`.
    best_x: (B, H, W, C) iterate of largest loss.
    best_gradient: (B, H, W, C) at `best_x`.
    best_loss: (B,) at `best_x`.
    adversarial: (B, H, W, C) last misclassified iterate, if any.
    robust: (B,) whether no iterate was misclassified.
    control: State of the norm's rule.
  """

  x: jax.Array
  gradient: jax.Array
  best_x: jax.Array
  best_gradient: jax.Array
  best_loss: jax.Array
  adversarial: jax.Array
  robust: jax.Array
  control: Any


class State(NamedTuple):
  """A round's carry."""

  round: Round
  walk: Walk


class Result(NamedTuple):
  """What is known between rounds.

  Attributes:
    image: (B, H, W, C) adversarial images, else the clean ones.
    robust: (B,) whether none was found yet.
    ranking: (B, T) classes of the clean image by logit, the largest first; the
      labels, (B, 1), for untargeted losses.
  """

  image: jax.Array
  robust: jax.Array
  ranking: jax.Array


class Seen(NamedTuple):
  """The network's evaluation of an iterate.

  Attributes:
    loss: (B,).
    right: (B,) whether it is classified as its label.
    gradient: (B, H, W, C) of the loss.
  """

  loss: jax.Array
  right: jax.Array
  gradient: jax.Array


class Row(NamedTuple):
  """One step of the schedule; each costs a forward and a backward pass.

  Attributes:
    fresh: Whether it starts a phase instead of moving.
    first: Whether it is its phase's first move.
    window: 0, or the number of steps that the checkpoint after it covers.
    eps: Radius.
  """

  fresh: jax.Array
  first: jax.Array
  window: jax.Array
  eps: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class APGD:
  """Ascends from a random start; halves the step or sparsifies as needed.

  Returns for each image the last misclassified iterate of the first round that
  has one, else the clean image. Later rounds count only for images that are
  still robust. With targets, an image misclassified from the start is returned
  clean, since the ranking of its classes shows it. Otherwise it is attacked
  like any other, because checking the clean images would cost a forward pass.

  Attributes:
    eps: Radius of the ball, for pixels in [0, 1].
    norm: 'linf', 'l2' or 'l1'; for l1 the radius falls from 3 eps over 2 eps
      to eps, and only the last phase's iterates count.
    steps: Moves of a round, all phases together; one more forward and backward
      pass for the start of each phase.
    restarts: Rounds, each from its own random start; for each target, if any.
    loss: 'ce', 'dlr' (3 classes or more) or 'targeted_dlr' (4 or more).
    target_classes: Number of target classes, one per round: the wrong classes
      of largest logit for the clean image. Only for 'targeted_dlr'.
    eot: Number of evaluations to average each gradient over, for random
      networks. Above 1, `predict` is called with (image, keys), and the last
      evaluation gives the loss and whether the attack succeeded.
    rho: A window in which the loss rose in no more than this share of the
      steps is an oscillation. Not for l1.
    loop: 'auto', 'host' or 'scan'; see `loops.run`.
  """

  eps: float
  norm: str = 'linf'
  steps: int = 100
  restarts: int = 1
  loss: str = 'ce'
  target_classes: int = 9
  eot: int = 1
  rho: float = 0.75
  loop: str = 'auto'

  def __post_init__(self):
    loops.check(self.loop)
    for field, known in (('norm', NORMS), ('loss', LOSSES)):
      if getattr(self, field) not in known:
        raise UserError(
          f'{field}={getattr(self, field)!r} of apgd is not one of {known}.'
        )
    for field in ('steps', 'restarts', 'target_classes', 'eot'):
      if getattr(self, field) < 1:
        raise UserError(f'{field}={getattr(self, field)} of apgd is below 1.')
    self.rule.phases(self.steps)

  def __call__(
    self,
    keys: jax.Array,
    predict: Callable[..., jax.Array],
    image: jax.Array,
    label: jax.Array,
    rounds: range | None = None,
  ) -> jax.Array:
    """Returns adversarial or clean images (B, H, W, C).

    Runs only the given `rounds`, if any. The class of a soft label is its
    largest entry.

    Raises:
      UserError: There are too few classes for the loss or the targets.
    """
    if label.ndim == 2:
      label = jnp.argmax(label, axis=-1)
    return loops.run(self, keys, predict, image, label, rounds)

  @property
  def rule(self) -> apgd_dense.Dense | apgd_l1.Sparse:
    """Returns the norm's rule for moves and step sizes."""
    if self.norm == 'l1':
      return apgd_l1.Sparse()
    return apgd_dense.Dense(self.norm, self.rho)

  @property
  def rounds(self) -> int:
    """Returns the number of restarts of all targets."""
    targeted = self.loss == 'targeted_dlr'
    return self.restarts * (self.target_classes if targeted else 1)

  @property
  def length(self) -> int:
    """Returns the steps of one round, starts of phases included."""
    return self.steps + len(self.rule.phases(self.steps))

  def prepare(self, inputs: Inputs) -> Result:
    """Returns the clean images and, for targets, the ranking of classes."""
    image, label = inputs.image, inputs.label
    if self.loss != 'targeted_dlr':
      return Result(image, jnp.ones(label.shape, bool), label[:, None])
    logits = self._predict(inputs, image, inputs.keys)
    robust = jnp.argmax(logits, axis=-1) == label
    classes, wanted = logits.shape[-1], self.target_classes + 1
    if wanted > classes:
      raise UserError(
        f'target_classes={self.target_classes} of apgd is too many for '
        f'{classes} classes.'
      )
    _, ranking = jax.lax.top_k(logits, wanted)
    return Result(image, robust, ranking)

  def start(self, number: jax.Array, result: Result, inputs: Inputs) -> State:
    """Returns a round at its random start; nothing is evaluated yet."""
    keys = _fold(inputs.keys, number)
    image = inputs.image
    eps = jnp.asarray(self.eps, image.dtype)
    x = self.rule.random_start(_fold(keys, 0), image, eps)
    rank = 0
    if self.loss == 'targeted_dlr':
      rank = 1 + number // self.restarts
    target = jnp.take(result.ranking, rank, axis=1)
    empty = jnp.zeros_like(x)
    loss = jnp.zeros(image.shape[:1], jnp.promote_types(x.dtype, jnp.float32))
    control = self.rule.begin(x, image, loss, eps)
    walk = Walk(x, empty, x, empty, loss, x, result.robust, control)
    return State(Round(keys, target, result.robust), walk)

  @property
  def stages(self):
    """Returns the functions of a step: one."""
    return (self.step,)

  def step(self, number: jax.Array, carry: State, inputs: Inputs) -> State:
    """Returns the walks one move further, or at the start of a phase."""
    x, control = self.propose(number, carry, inputs)
    return self.visit(number, x, control, carry, inputs)

  def propose(
    self, number: jax.Array, carry: State, inputs: Inputs
  ) -> tuple[jax.Array, Any]:
    """Returns the iterates to evaluate next, and the rule's state."""
    walk, image = carry.walk, inputs.image
    row = self._row(number, image)
    moved, control = self.rule.move(
      walk.control, walk.x, walk.gradient, image, row.eps, row.first
    )
    entered = self.rule.enter(walk.best_x, image, row.eps)
    return jnp.where(row.fresh, entered, moved), control

  def visit(
    self,
    number: jax.Array,
    x: jax.Array,
    control: Any,
    carry: State,
    inputs: Inputs,
  ) -> State:
    """Returns the walks after an evaluation at `x`."""
    image, row = inputs.image, self._row(number, inputs.image)
    keys = _fold(carry.round.keys, number + 1)
    seen = self._evaluate(x, keys, carry.round, inputs)
    begun = self._begin(x, seen, image, row)
    gone = self._go(x, seen, image, row, carry.walk._replace(control=control))
    pick = lambda a, b: jnp.where(row.fresh, a, b)
    return State(carry.round, jax.tree.map(pick, begun, gone))

  def active(self, carry: State) -> jax.Array:
    """Returns which images the round attacks, (B,), even if broken by it."""
    return carry.round.robust

  def finish(self, carry: State, result: Result, inputs: Inputs) -> Result:
    """Returns the result updated by the round."""
    walk = carry.walk
    found = carry.round.robust & ~walk.robust
    image = jnp.where(_wide(found), walk.adversarial, result.image)
    return result._replace(image=image, robust=result.robust & ~found)

  def schedule(self, dtype: Any) -> Row:
    """Returns the rows of all steps as arrays."""
    fresh, first, window, radius = [], [], [], []
    for factor, steps in self.rule.phases(self.steps):
      fresh += [True] + [False] * steps
      first += [False, True] + [False] * (steps - 1)
      window += [0, *self.rule.windows(steps)]
      radius += [factor] * (steps + 1)
    eps = jnp.array(radius, dtype) * jnp.asarray(self.eps, dtype)
    return Row(jnp.array(fresh), jnp.array(first), jnp.array(window), eps)

  def _row(self, number, image) -> Row:
    return jax.tree.map(lambda x: x[number], self.schedule(image.dtype))

  def _begin(self, x, seen: Seen, image, row):
    loss, right, gradient = seen
    control = self.rule.begin(x, image, loss, row.eps)
    return Walk(x, gradient, x, gradient, loss, x, right, control)

  def _go(self, x, seen: Seen, image, row, walk):
    """Returns the walk after a move to `x`."""
    loss, right, gradient = seen
    better = loss > walk.best_loss
    best_x = jnp.where(_wide(better), x, walk.best_x)
    best_gradient = jnp.where(_wide(better), gradient, walk.best_gradient)
    best_loss = jnp.where(better, loss, walk.best_loss)
    control, jump = self.rule.adapt(
      walk.control, image, loss, best_x, best_loss, row.eps, row.window
    )
    return Walk(
      x=jnp.where(_wide(jump), best_x, x),
      gradient=jnp.where(_wide(jump), best_gradient, gradient),
      best_x=best_x,
      best_gradient=best_gradient,
      best_loss=best_loss,
      adversarial=jnp.where(_wide(right), walk.adversarial, x),
      robust=walk.robust & right,
      control=control,
    )

  def _evaluate(self, x, keys, around: Round, inputs: Inputs) -> Seen:
    """Returns the evaluation at `x`; weights get no gradient."""

    def total(x, keys):
      logits = self._predict(inputs, x, keys)
      loss = self._loss(logits, inputs.label, around.target)
      right = jnp.argmax(logits, axis=-1) == inputs.label
      # A sum, so that each image's gradient is its own.
      return jnp.sum(loss), (loss, right)

    gradient_of = jax.grad(total, has_aux=True)
    if self.eot == 1:
      gradient, seen = gradient_of(x, keys)
      return Seen(seen[0], seen[1], gradient)

    def once_more(carry):
      sample, gradient, _ = carry
      more, seen = gradient_of(x, _fold(keys, sample))
      return sample + 1, gradient + more, seen

    loss = jnp.zeros(x.shape[:1], jnp.promote_types(x.dtype, jnp.float32))
    carry = jnp.int32(0), jnp.zeros_like(x), (loss, around.robust)
    _, gradient, seen = pgd.repeat(self.eot, once_more, carry)
    return Seen(seen[0], seen[1], gradient / self.eot)

  def _loss(self, logits, label, target):
    if self.loss == 'ce':
      return losses.cross_entropy(logits, label)
    if self.loss == 'dlr':
      return losses.dlr(logits, label)
    return losses.targeted_dlr(logits, label, target)

  def _predict(self, inputs, x, keys):
    network: Callable[..., jax.Array] = inputs.network
    logits = network(x) if self.eot == 1 else network(x, keys)
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _fold(keys, data):
  return jax.vmap(functools.partial(jax.random.fold_in, data=data))(keys)


def _wide(x):
  return x[:, None, None, None]
