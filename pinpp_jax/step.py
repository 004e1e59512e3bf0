"""The training step: augment, perturb, differentiate, update, average."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import optax

from pinpp_jax import optim, sharding
from pinpp_jax.augment import Augment
from pinpp_jax.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """The fixed objects of a step; hashable, so that `jit` can hold it static.

  Attributes:
    model: Linen module, image in [0, 1] to a dict of outputs.
    objective: (model, variables, batch, key) to (loss, (batch_stats, metrics)).
    augment: Random changes of the batch on the device.
    attack: Adversary of the training images, or None.
    attack_ramp: Maps the step to the factor on the attack's step size.
    tx: Optimiser.
    schedule: Maps the step to its learning rate.
    frozen: Paths of parameters that are not trained.
    ema_decay: Weight of the past in the average.
    mesh: Mesh over whose axis 'fsdp' the state is split; None if every device
      holds the whole state.
  """

  model: nn.Module
  objective: Callable[..., Any]
  augment: Augment
  attack: Any
  attack_ramp: Callable[[jax.Array], Any]
  tx: optax.GradientTransformation
  schedule: Callable[[jax.Array], Any]
  frozen: tuple[str, ...]
  ema_decay: float
  mesh: jax.sharding.Mesh | None = None


@functools.partial(jax.jit, donate_argnames='state', static_argnames='recipe')
def train_step(
  state: TrainState, batch: Any, key: jax.Array, *, recipe: Recipe
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Takes one step; returns the new state and scalars to log."""
  augment_key, attack_key, model_key = keys(key, state.step)
  batch = recipe.augment(augment_key, batch)
  whole = dataclasses.replace(state, params=_whole(state.params, recipe.mesh))
  if recipe.attack is not None:
    batch = batch | {'image': perturb(whole, batch, attack_key, recipe)}

  def loss_fn(params):
    params = optim.stop_frozen(params, recipe.frozen)
    variables = state.variables | {'params': params}
    return recipe.objective(recipe.model, variables, batch, model_key)

  grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(whole.params)
  updates, opt_state = recipe.tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  variables = {'params': params, 'batch_stats': batch_stats}
  state = TrainState(
    step=state.step + 1,
    opt_state=opt_state,
    ema=optim.update_ema(state.ema, variables, recipe.ema_decay),
    **variables,
  )
  metrics = metrics | {
    'grad_norm': optax.tree.norm(grads),
    'learning_rate': jnp.asarray(recipe.schedule(state.step - 1)),
  }
  return _split(state, recipe.mesh), metrics


def keys(key: jax.Array, step: jax.Array | int) -> jax.Array:
  """Returns a step's keys: for the augmentation, the attack and the network.

  They depend on the step alone, so a resumed run repeats its random numbers.
  """
  return jax.random.split(jax.random.fold_in(key, step), 3)


def image_keys(key: jax.Array, ids: jax.Array) -> jax.Array:
  """Returns one key per image, (B,), from a step's key and the ids."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, ids)


def perturb(
  state: TrainState, batch: Any, key: jax.Array, recipe: Recipe
) -> jax.Array:
  """Returns adversarial images for the network in evaluation mode.

  The attack uses the running statistics, no bypass, and one key per image.
  """

  def predict(image):
    outputs: Any = recipe.model.apply(state.variables, image, train=False)
    return outputs['logits']

  attack = dataclasses.replace(
    recipe.attack,
    step_size=recipe.attack.step_size * recipe.attack_ramp(state.step),
  )
  own = image_keys(key, batch['id'])
  return attack(own, predict, batch['image'], batch['label'])


def _whole(params: Any, mesh: jax.sharding.Mesh | None) -> Any:
  """Returns parameters replicated over all devices, as the network uses them.

  Without the constraint the compiler might split the features instead.
  """
  if mesh is None:
    return params
  return jax.lax.with_sharding_constraint(params, sharding.replicated(mesh))


def _split(state: TrainState, mesh: jax.sharding.Mesh | None) -> TrainState:
  """Returns the state split over the devices as before the step."""
  if mesh is None:
    return state
  return jax.lax.with_sharding_constraint(state, sharding.split(state, mesh))
