"""APGD from a given start, step by step, as AutoAttack's was recorded."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax.attacks import apgd, loops
from pinpp_jax.attacks.apgd import APGD


class Run:
  """One round; a targeted loss pulls to the last of the attack's targets.

  Args:
    attack: Its random start is replaced by the given one.
    network: A pytree that can be called with images.
    image: (B, H, W, C).
    label: (B,).
    start: (B, H, W, C), from which the round starts.
  """

  def __init__(self, attack: APGD, network: Any, image, label, start):
    self.attack, self.start = attack, start
    keys = jax.random.split(jax.random.key(0), len(image))
    self.inputs = loops.Inputs(keys, network, image, label)
    # Closures, so that nothing compiled before a rule was changed is found.
    self.propose = jax.jit(lambda *a: self.attack.propose(*a))
    self.visit = jax.jit(lambda *a: self.attack.visit(*a))
    self.prepared = jax.jit(lambda *a: self.attack.prepare(*a))(self.inputs)

  def begin(self) -> apgd.State:
    """Returns a state in which nothing counts yet but the start."""
    result = self.prepared
    state = jax.eval_shape(self.attack.start, 0, result, self.inputs)
    empty = lambda x: jnp.zeros(x.shape, x.dtype)
    around = apgd.Round(self.inputs.keys, result.ranking[:, -1], result.robust)
    walk = jax.tree.map(empty, state.walk)
    return apgd.State(around, walk._replace(x=self.start, best_x=self.start))

  def steps(
    self, forced: Any = None
  ) -> Iterator[tuple[apgd.State, np.ndarray, apgd.State]]:
    """Yields (state before, iterate, state after); `forced` are walked on."""
    state = self.begin()
    for i in range(self.attack.length):
      x, control = self.propose(i, state, self.inputs)
      there = x if forced is None else forced[i]
      after = self.visit(i, there, control, state, self.inputs)
      yield state, np.asarray(x), after
      state = after

  def walk(self) -> tuple[np.ndarray, list[Any], apgd.Walk]:
    """Returns (iterates, what the rule remembered after each, the last walk).

    All of NumPy.
    """
    seen, controls, after = [], [], None
    for _, x, after in self.steps():
      seen.append(x)
      controls.append(jax.tree.map(np.asarray, after.walk.control))
    assert after is not None
    return np.stack(seen), controls, jax.tree.map(np.asarray, after.walk)
