"""How often an attack calls the network, as AutoAttack does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.attacks.apgd import APGD
from pinpp_jax.attacks.fab import FAB
from pinpp_jax.attacks.square import Square

B, S, K = 3, 5, 11
EPS = 1e-6  # nothing is found, so that nothing ends early


def once(attack):
  """Returns forward and backward passes of one APGD round."""
  phases = 3 if attack.norm == 'l1' else 1
  return attack.steps + phases, attack.steps + phases


def per_target(attack):
  passes, _ = once(attack)
  targets = attack.target_classes
  return targets * passes + 1, targets * passes


def boundary(attack):
  steps = attack.target_classes * attack.steps
  return 2 * steps + 1, steps


def every_boundary(attack):
  return 2 * attack.steps + 1, K * attack.steps


def queried(attack):
  return attack.queries + 1, 0


# The attack, its rule, the passes it takes at AutoAttack's settings, and fewer
# steps to count at. One forward pass in those with targets ranks the classes.
CASES = {
  'apgd-ce': (APGD(eps=EPS), once, (101, 101), {'steps': 7}),
  'apgd-ce l1': (APGD(eps=EPS, norm='l1'), once, (103, 103), {'steps': 7}),
  'apgd-dlr l2': (
    APGD(eps=EPS, norm='l2', loss='dlr'), once, (101, 101), {'steps': 26}),
  'apgd-t': (
    APGD(eps=EPS, loss='targeted_dlr'), per_target, (909 + 1, 909),
    {'steps': 3, 'target_classes': 2}),
  'fab-t': (
    FAB(eps=EPS), boundary, (1800 + 1, 900),
    {'steps': 3, 'target_classes': 2}),
  'fab': (
    FAB(eps=EPS, targeted=False), every_boundary, (201, 1100), {'steps': 2}),
  'square': (Square(eps=EPS), queried, (5001, 0), {'queries': 30}),
  'square l1': (
    Square(eps=EPS, norm='l1'), queried, (5001, 0), {'queries': 30}),
}  # fmt: skip


class Counter:
  """A network that counts the images it sees, forward and backward."""

  def __init__(self):
    self.forward = self.backward = 0
    weights = np.random.default_rng(0).normal(size=(S * S * 3, K))
    self.weights = jnp.asarray(weights, jnp.float32)
    self.mark = jax.custom_vjp(self._forward)
    self.mark.defvjp(lambda x: (self._forward(x), None), self._backward)

  def _forward(self, x):
    jax.debug.callback(lambda x: self._add('forward', x), x[:, 0, 0, 0])
    return x

  def _backward(self, _, cotangent):
    seen = cotangent[:, 0, 0, 0]
    jax.debug.callback(lambda x: self._add('backward', x), seen)
    return (cotangent,)

  def _add(self, name, x):
    setattr(self, name, getattr(self, name) + len(x))

  def __call__(self, x):
    return self.mark(x).reshape(len(x), -1) @ self.weights


def count(attack, loop, rounds=None):
  """Returns forward and backward passes per image."""
  net = Counter()
  image = np.random.default_rng(1).random((B, S, S, 3)).astype(np.float32)
  label = jnp.argmax(net(image), -1)
  jax.effects_barrier()
  net.forward = 0
  attack = dataclasses.replace(attack, loop=loop)
  keys = jax.random.split(jax.random.key(0), B)
  x = attack(keys, net, jnp.asarray(image), label, rounds=rounds)
  np.testing.assert_allclose(x, image, atol=2 * EPS)
  jax.effects_barrier()
  return net.forward / B, net.backward / B


@pytest.mark.parametrize('loop', ['host', 'scan'])
@pytest.mark.parametrize('name', CASES)
def test_calls_are_those_of_autoattack(name, loop):
  attack, rule, published, fewer = CASES[name]
  assert rule(attack) == published
  small = dataclasses.replace(attack, **fewer)
  assert count(small, loop) == rule(small)


def test_each_target_alone_costs_one_more_ranking():
  attack = APGD(eps=EPS, loss='targeted_dlr', steps=3, target_classes=4)
  alone = [count(attack, 'host', range(i, i + 1)) for i in range(4)]
  assert alone == [(4 + 1, 4)] * 4
