"""Training steps one after another, each from the state of the last."""

from collections.abc import Iterator
import functools
from typing import Any

import jax

from pinpp_jax import sharding, state, step


class Steps:
  """Takes one step per call.

  Args:
    recipe: Fixed objects of the step.
    batches: Endless, on the device.
    image_size: Side of their images.
    variables: First weights and statistics; fresh ones if None.
    mesh: Mesh over which the batches are split; None for one device.
  """

  def __init__(
    self,
    recipe: step.Recipe,
    batches: Iterator[Any],
    image_size: int,
    variables: Any = None,
    mesh: jax.sharding.Mesh | None = None,
  ):
    self.recipe, self._batches = recipe, batches
    self.key = jax.random.key(0)
    if variables is None:
      variables = jax.jit(
        functools.partial(state.initial_variables, recipe.model, image_size)
      )(state.key(0))
    self.state = jax.jit(functools.partial(state.create, tx=recipe.tx))(
      variables
    )
    if mesh is not None:
      self.state = jax.device_put(self.state, sharding.replicated(mesh))

  def __call__(self) -> dict[str, jax.Array]:
    """Returns the step's metrics, not awaited."""
    self.state, values = step.train_step(
      self.state, next(self._batches), self.key, recipe=self.recipe
    )
    return values

  def compiled(self) -> jax.stages.Compiled:
    """Returns the compiled step."""
    return step.train_step.lower(
      self.state, next(self._batches), self.key, recipe=self.recipe
    ).compile()
