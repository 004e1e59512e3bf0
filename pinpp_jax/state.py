"""The state of a training run, as its checkpoints hold it."""

from typing import Any

from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp
import optax


@struct.dataclass
class TrainState:
  """Arrays only: the checkpoint is this tree."""

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Any  # {'params', 'batch_stats'}, averaged over the steps.

  @property
  def variables(self) -> dict[str, Any]:
    """Returns the weights and statistics of the last step, as Flax wants."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


def key(seed: int) -> jax.Array:
  """Returns the key of the initial variables.

  Its implementation differs from the run's key: XLA's CPU compiler needs 0.4 s
  for each array drawn with the default one, and a ResNet has a hundred arrays.
  """
  return jax.random.key(seed, impl='rbg')


def initial_variables(
  model: nn.Module, image_size: int, key: jax.Array
) -> dict[str, Any]:
  """Returns fresh `params` and `batch_stats`, those of the bypass included."""
  image = jnp.zeros((1, image_size, image_size, 3))
  variables: Any = model.init(key, image, train=False, parts=True)
  return {'batch_stats': {}} | variables


def create(variables: Any, tx: optax.GradientTransformation) -> TrainState:
  """Returns the state before the first step."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    opt_state=tx.init(variables['params']),
    ema=jax.tree.map(jnp.copy, variables),
    **variables,
  )
