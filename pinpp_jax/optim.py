"""Optimisers, schedules, frozen parameters, averages of the weights.

Decay, momentum and schedule are those of the PyTorch reference: decay is added
to the gradient (SGD), and only for tensors of two or more dimensions; momentum
starts as the first gradient, without damping; the learning rate changes with
every update.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from pinpp_jax.construct import construct
from pinpp_jax.errors import UserError

REFERENCE_BATCH = 512  # images per update that `learning_rate` is meant for


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """What every optimiser has in common.

  Attributes:
    learning_rate: Peak, for 512 images per update; scaled linearly with the
      batch size. The other two rates are not scaled.
    min_learning_rate: Where the cosine ends; the rate stays there.
    warmup_learning_rate: Where the linear warm-up starts.
    epochs: Length of the run.
    warmup_epochs: Length of the warm-up, a part of the run. The cosine counts
      from the run's start, so it is a little below the peak when the warm-up
      ends.
    schedule: After the warm-up: 'cosine', 'constant', or 'step', the peak times
      `decay_rate` for every `decay_epochs` since the run's start.
    decay_epochs: Length of a step.
    decay_rate: Factor of a step.
    truncate_warmup: Allow a warm-up that outlasts the run, which then ends
      before the peak.
    weight_decay: For tensors of two or more dimensions: convolution and dense
      kernels (depthwise ones too), not biases and normalisation.
    frozen: Paths of parameters ('segmenter', 'segmenter/layer1') that get no
      update, no decay and no optimiser state.
  """

  learning_rate: float = 0.2
  min_learning_rate: float = 1e-2
  warmup_learning_rate: float = 1e-3
  epochs: float = 80
  warmup_epochs: float = 2
  schedule: str = 'cosine'
  decay_epochs: float = 5
  decay_rate: float = 0.1
  truncate_warmup: bool = False
  weight_decay: float = 1e-4
  frozen: tuple[str, ...] = ()

  def __post_init__(self):
    known = ('cosine', 'constant', 'step')
    if self.schedule not in known:
      raise UserError(
        f'schedule={self.schedule!r} of optim is not one of {known}.'
      )
    if self.warmup_epochs > self.epochs and not self.truncate_warmup:
      raise UserError(
        f'The warm-up of {self.warmup_epochs} epochs is longer than the run '
        f'of {self.epochs}, so that the learning rate would never reach its '
        'peak: lower optim.warmup_epochs, or set optim.truncate_warmup.'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGD(Recipe):
  """Stochastic gradient descent with momentum, as torch.optim.SGD does it."""

  momentum: float = 0.9
  nesterov: bool = True

  def rule(self, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns decay, then momentum, then the step."""
    return optax.chain(
      optax.add_decayed_weights(self.weight_decay, decay_mask),
      optax.trace(self.momentum, self.nesterov),
      optax.scale_by_learning_rate(schedule),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW(Recipe):
  """Adam with decoupled weight decay."""

  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8

  def rule(self, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns Adam's direction, then decay, then the step."""
    return optax.adamw(
      schedule,
      self.b1,
      self.b2,
      self.eps,
      weight_decay=self.weight_decay,
      mask=decay_mask,
    )


OPTIMISERS = {'sgd': SGD, 'adamw': AdamW}


def make(
  section: Mapping[str, Any], steps_per_epoch: int, batch_size: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Returns the optimiser and its schedule, update number to learning rate.

  Args:
    section: `name` ('sgd' or 'adamw') and the fields of that class.
    steps_per_epoch: Updates in an epoch.
    batch_size: Images per update, over all devices and processes.

  Raises:
    UserError: For a field that is unknown or does not fit the others.
  """
  # A ConfigDict may hold a list in place of a tuple.
  section = dict(section)
  if 'frozen' in section:
    section['frozen'] = tuple(section['frozen'])
  recipe = construct(OPTIMISERS, section)
  schedule = make_schedule(recipe, steps_per_epoch, batch_size)
  tx = recipe.rule(schedule)
  if recipe.frozen:
    tx = optax.partition(
      {'trained': tx, 'frozen': optax.set_to_zero()},
      lambda params: frozen_labels(params, recipe.frozen),
    )
  return tx, schedule


def make_schedule(
  recipe: Recipe, steps_per_epoch: int, batch_size: int
) -> optax.Schedule:
  """Returns the learning rate of update u = 0, 1, ... as a float scalar."""
  peak = recipe.learning_rate * batch_size / REFERENCE_BATCH
  warmup = round(recipe.warmup_epochs * steps_per_epoch)
  total = max(round(recipe.epochs * steps_per_epoch), 1)
  interval = max(round(recipe.decay_epochs * steps_per_epoch), 1)
  start, end = recipe.warmup_learning_rate, recipe.min_learning_rate

  def schedule(update):
    u = jnp.asarray(update, float)
    rising = start + u * ((peak - start) / max(warmup, 1))
    after = jnp.asarray(peak, float)
    if recipe.schedule == 'cosine':
      turn = 1 + jnp.cos(jnp.pi * jnp.minimum(u / total, 1))
      after = end + 0.5 * (peak - end) * turn
    elif recipe.schedule == 'step':
      after = peak * recipe.decay_rate ** jnp.floor(u / interval)
    return jnp.where(u < warmup, rising, after)

  return schedule


def decay_mask(params: Any) -> Any:
  """Returns which tensors decay: those of two or more dimensions.

  A transformer's position embedding and class token do not, as in timm.
  """

  def decays(path, x):
    return x.ndim >= 2 and path[-1].key not in ('pos_embed', 'cls_token')

  return jax.tree_util.tree_map_with_path(decays, params)


def frozen_labels(params: Any, frozen: tuple[str, ...]) -> Any:
  """Returns 'frozen' or 'trained' for every parameter.

  Raises:
    UserError: If a path of `frozen` is that of no parameter.
  """
  unused = set(frozen)

  def label(path, _):
    names = [str(p.key) for p in path]
    starts = {'/'.join(names[: i + 1]) for i in range(len(names))}
    unused.difference_update(starts)
    return 'trained' if starts.isdisjoint(frozen) else 'frozen'

  labels = jax.tree_util.tree_map_with_path(label, params)
  if unused:
    raise UserError(
      f'optim.frozen names {sorted(unused)}, but there are no such parameters; '
      f'the top level has {sorted(params)}.'
    )
  return labels


def stop_frozen(params: Any, frozen: tuple[str, ...]) -> Any:
  """Returns the parameters with the gradient stopped at the frozen ones.

  So the backward pass skips gradients that the optimiser would discard.
  """
  if not frozen:
    return params
  labels = frozen_labels(params, tuple(frozen))
  return jax.tree.map(
    lambda x, label: jax.lax.stop_gradient(x) if label == 'frozen' else x,
    params,
    labels,
  )


def update_ema(ema: Any, new: Any, decay: float) -> Any:
  """Returns decay * ema + (1 - decay) * new for every leaf.

  Args:
    ema: Average so far of params and batch_stats.
    new: Their values after this update.
    decay: Weight of the past, 0.9998 in the reference.
  """
  return jax.tree.map(lambda e, x: decay * e + (1 - decay) * x, ema, new)


def attack_ramp(
  step: jax.Array | int,
  steps_per_epoch: int,
  warmup_epochs: float,
  by_epoch: bool = False,
) -> jax.Array:
  """Returns the factor of the attack's step size in training, up to 1.

  Args:
    step: Update, from 0.
    steps_per_epoch: Updates in an epoch.
    warmup_epochs: After them the factor is 1; 0 for 1 from the start.
    by_epoch: Rise by whole epochs from 0, as the reference does: its first
      epoch trains on the random start alone. By default the factor rises with
      every update and starts above 0.
  """
  if not warmup_epochs:
    return jnp.ones(())
  if by_epoch:
    done = jnp.asarray(step // steps_per_epoch, float)
    return jnp.minimum(done / warmup_epochs, 1)
  done = jnp.asarray(step + 1, float)
  return jnp.minimum(done / (warmup_epochs * steps_per_epoch), 1)
