"""How an attack of many steps runs: rounds of one step, on host or device."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.core
import jax.numpy as jnp

from pinpp_jax.errors import UserError

LOOPS = ('auto', 'host', 'scan')

# The host asks this often whether anything is left to do; an accelerator
# waits for the answer, so it is not asked at every step.
HOST_CHECK = 25


class Inputs(NamedTuple):
  """What an attack is called with; `network` is a pytree that can be called."""

  keys: jax.Array
  network: Callable[[jax.Array], jax.Array]
  image: jax.Array
  label: jax.Array


class Attack(Protocol):
  """Pure functions that `run` strings together.

  `result` is (image, robust, ...): the images found so far and, (B,), those
  that still resist. `carry` is one round's state.
  """

  @property
  def loop(self) -> str:
    """Returns one of LOOPS."""
    ...

  @property
  def rounds(self) -> int:
    """Returns the restarts, or targets times restarts."""
    ...

  @property
  def length(self) -> int:
    """Returns the steps of a round, at most."""
    ...

  def prepare(self, inputs: Inputs) -> Any:
    """Returns the result before the first round."""
    ...

  def start(self, number: jax.Array, result: Any, inputs: Inputs) -> Any:
    """Returns a round's carry."""
    ...

  @property
  def stages(self) -> tuple[Callable[..., Any], ...]:
    """Returns what a step is made of, each (number, state, inputs) to state.

    The first one's state is a carry, and so is what the last one returns.
    """
    ...

  def active(self, carry: Any) -> jax.Array:
    """Returns which images, (B,), the round still works on."""
    ...

  def finish(self, carry: Any, result: Any, inputs: Inputs) -> Any:
    """Returns the result with what the round found."""
    ...


def check(loop: str) -> None:
  """Raises UserError for a form of loop that is not known."""
  if loop not in LOOPS:
    raise UserError(f'loop={loop!r} of an attack is not one of {LOOPS}.')


def run(
  attack: Attack,
  keys: jax.Array,
  predict: Callable[[jax.Array], jax.Array],
  image: jax.Array,
  label: jax.Array,
  rounds: range | None = None,
) -> jax.Array:
  """Returns the images that an attack's rounds found, else the clean ones.

  `rounds` are consecutive, and some of the attack's; None stands for all. A
  round does the same alone as after others.

  The loop over steps is Python's around a step's compiled stages ('host') or a
  while loop on the device ('scan'). 'auto' takes the host on a CPU, where XLA
  makes the input gradient of a convolution 10 times slower inside a loop, and
  the device elsewhere and inside an outer jit. Nothing compiles again for an
  equal attack, the same `predict` and equal shapes; a `jax.tree_util.Partial`
  of a function and its weights makes the weights arguments, not constants.

  Raises:
    UserError: 'host' is asked for inside an outer jit.
  """
  if rounds is None:
    rounds = range(attack.rounds)
  if not isinstance(predict, jax.tree_util.Partial):
    predict = jax.tree_util.Partial(predict)
  inputs = Inputs(keys, predict, image, label)
  traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(inputs))
  if traced:
    if attack.loop == 'host':
      raise UserError(
        "loop='host' of an attack cannot run inside jit; use 'scan' or 'auto'."
      )
    return _on_device(attack, inputs, rounds.start, rounds.stop)
  cpu = jax.default_backend() == 'cpu'
  if attack.loop == 'host' or (attack.loop == 'auto' and cpu):
    return _on_host(attack, inputs, rounds)
  return _on_device_compiled(attack, inputs, rounds.start, rounds.stop)


def _on_host(attack: Attack, inputs: Inputs, rounds: range) -> jax.Array:
  result = _prepare(attack, inputs)
  for number in rounds:
    carry = _start(attack, number, result, inputs)
    for i in range(attack.length):
      if i % HOST_CHECK == 0 and not _any_active(attack, carry):
        break
      for stage in range(len(attack.stages)):
        carry = _stage(attack, stage, i, carry, inputs)
    result = _finish(attack, carry, result, inputs)
  return result[0]


def _on_device(attack: Attack, inputs: Inputs, first, last) -> jax.Array:
  def one_round(number, result):
    def going(state):
      i, carry = state
      return (i < attack.length) & jnp.any(attack.active(carry))

    def step(state):
      i, carry = state
      for stage in attack.stages:
        carry = stage(i, carry, inputs)
      return i + 1, carry

    start = attack.start(number, result, inputs)
    _, carry = jax.lax.while_loop(going, step, (jnp.int32(0), start))
    return attack.finish(carry, result, inputs)

  result = attack.prepare(inputs)
  return jax.lax.fori_loop(first, last, one_round, result)[0]


_on_device_compiled = jax.jit(_on_device, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def _prepare(attack: Attack, inputs):
  return attack.prepare(inputs)


@functools.partial(jax.jit, static_argnums=0)
def _start(attack: Attack, number, result, inputs):
  return attack.start(number, result, inputs)


# One stage at a time: of a whole step XLA's CPU backend makes loops that
# compute a proposal again for each of its uses.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _stage(attack: Attack, stage: int, number, carry, inputs):
  return attack.stages[stage](number, carry, inputs)


@functools.partial(jax.jit, static_argnums=0)
def _any_active(attack: Attack, carry):
  return jnp.any(attack.active(carry))


@functools.partial(jax.jit, static_argnums=0)
def _finish(attack: Attack, carry, result, inputs):
  return attack.finish(carry, result, inputs)
