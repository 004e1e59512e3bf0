"""The loop over rounds and steps of an attack, on the host or the device."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.core
import jax.numpy as jnp

from pinpp_jax.errors import UserError

LOOPS = ('auto', 'host', 'scan')

# Steps between the host's checks whether any image is left; each check makes
# the host wait for the device.
HOST_CHECK = 25


class Inputs(NamedTuple):
  """The arguments of an attack; `network` is a callable pytree."""

  keys: jax.Array
  network: Callable[[jax.Array], jax.Array]
  image: jax.Array
  label: jax.Array


class Attack(Protocol):
  """The pure functions of an attack, which `run` calls.

  `result` is (image, robust, ...): the images found so far, and (B,) which of
  them are still robust. `carry` is the state of one round.
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
    """Returns the maximum number of steps of a round."""
    ...

  def prepare(self, inputs: Inputs) -> Any:
    """Returns the result before the first round."""
    ...

  def start(self, number: jax.Array, result: Any, inputs: Inputs) -> Any:
    """Returns a round's carry."""
    ...

  @property
  def stages(self) -> tuple[Callable[..., Any], ...]:
    """Returns the functions of a step, each (number, state, inputs) to state.

    The first one takes a carry, and the last one returns a carry.
    """
    ...

  def active(self, carry: Any) -> jax.Array:
    """Returns which images, (B,), the round still works on."""
    ...

  def finish(self, carry: Any, result: Any, inputs: Inputs) -> Any:
    """Returns the result updated by the round."""
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
  """Returns the adversarial images that an attack found, else the clean ones.

  `rounds` is a consecutive range of the attack's rounds, None for all. A round
  gives the same result alone as after others.

  The loop over steps is Python's around a step's compiled stages ('host') or a
  while loop on the device ('scan'). 'auto' takes the host on a CPU, where XLA
  makes the input gradient of a convolution 10 times slower inside a loop, and
  the device elsewhere and inside an outer jit. An equal attack with the same
  `predict` and equal shapes does not compile again; with a
  `jax.tree_util.Partial` of a function and its weights, the weights are
  arguments of the program, not constants.

  Raises:
    UserError: 'host' was chosen inside an outer jit.
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


# One stage at a time: from a whole step XLA's CPU backend makes loops that
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
