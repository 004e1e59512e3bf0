"""Signs that a network masks its gradients instead of being robust.

The checks of AutoAttack (github.com/fra31/auto-attack, `checks.py`), and one of
our own: suspicious operations in the network's traced program. They are
warnings; none changes a result.
"""

from collections.abc import Callable, Iterator, Sequence
import functools
from typing import Any

import jax
from jax import extend
import jax.numpy as jnp
import numpy as np

from pinpp_jax.attacks import losses
from pinpp_jax.attacks.apgd import APGD

PASSES = 5
DIFFERENT = 1e-4
PROBABILITY = 1e-5
SQUARE_MARGIN = 0.002

OWN_GRADIENT = 'defines a gradient of its own'

# Primitives that a plain classifier does not have, and their meaning.
_OPERATIONS = {
  'while': 'loops',
  'random_bits': 'draws random numbers',
  'threefry2x32': 'draws random numbers',
  'rng_bit_generator': 'draws random numbers',
  'custom_vjp_call': OWN_GRADIENT,
  'custom_vjp_call_jaxpr': OWN_GRADIENT,
  'round': 'rounds',
  'floor': 'rounds',
  'ceil': 'rounds',
  'sign': 'rounds',
  'pure_callback': 'calls the host',
  'io_callback': 'calls the host',
}


def randomised(passes: Sequence[np.ndarray], label: Any) -> bool:
  """Returns whether passes over the same images differ.

  They do if the number of right images differs, or two vectors of logits scaled
  to length 1 are more than 1e-4 apart.

  Args:
    passes: Logits (B, K) of each pass.
    label: (B,) integers.
  """
  label = np.asarray(label)
  right = {int((z.argmax(-1) == label).sum()) for z in passes}
  unit = [z / np.linalg.norm(z, axis=-1, keepdims=True) for z in passes]
  apart = max(np.linalg.norm(z - unit[0], axis=-1).max() for z in unit)
  return len(right) > 1 or bool(apart > DIFFERENT)


def probabilities(logits: np.ndarray) -> bool:
  """Returns whether the logits, (B, K), look like a softmax's outputs."""
  logits = np.asarray(logits, np.float64)
  inside = logits.max() < 1 + PROBABILITY and logits.min() > -PROBABILITY
  return bool(inside and (abs(logits.sum(-1) - 1) < PROBABILITY).all())


def zero_gradients(
  network: jax.tree_util.Partial,
  keys: jax.Array,
  image: jax.Array,
  label: jax.Array,
  *,
  norm: str,
  eps: float,
) -> jax.Array:
  """Returns which images have a zero gradient where APGD starts, (B,) bool.

  The gradient of the difference of logits ratio, or of the cross entropy for
  fewer than three classes. Images misclassified at that start are left out,
  unlike in AutoAttack: they are broken already, and if the label ranks third,
  the ratio is 1 for any network and its gradient is only rounding.
  """
  gradient, right = _start(network, keys, image, label, norm=norm, eps=eps)
  return right & jnp.all(gradient == 0, axis=(1, 2, 3))


@functools.partial(jax.jit, static_argnames=('norm', 'eps'))
def _start(network, keys, image, label, *, norm, eps):
  """Returns a loss's gradient where APGD starts, and which images are right."""

  def total(image):
    logits = network(image).astype(jnp.float32)
    few = logits.shape[-1] < 3
    loss = losses.cross_entropy if few else losses.dlr
    right = jnp.argmax(logits, axis=-1) == label
    return jnp.sum(loss(logits, label)), right

  rule = APGD(eps=eps, norm=norm).rule
  start = rule.random_start(keys, image, jnp.float32(eps))
  return jax.grad(total, has_aux=True)(start)


def operations(
  predict: Callable[[jax.Array], jax.Array], image: jax.Array
) -> list[str]:
  """Returns the operations of a network that a plain classifier does not have.

  Found in its traced program: derivatives, loops, random numbers, rounding,
  custom gradients. They may be harmless, such as the faster gradient of max
  pooling in this project's ResNet; otherwise use an adaptive attack. Stopped
  gradients are not reported: every softmax has one.
  """
  found = set()
  for equation in _equations(jax.make_jaxpr(predict)(image).jaxpr):
    name = str(equation.primitive)
    if name in _OPERATIONS:
      found.add(_OPERATIONS[name])
    if 'transpose(' in str(equation.source_info.name_stack):
      found.add('takes derivatives')
  return sorted(found)


def _equations(jaxpr: Any) -> Iterator[Any]:
  """Yields the equations of a program and of the programs inside it."""
  for equation in jaxpr.eqns:
    yield equation
    for value in jax.tree.leaves(
      equation.params, is_leaf=lambda x: isinstance(x, _PROGRAMS)
    ):
      if isinstance(value, extend.core.ClosedJaxpr):
        yield from _equations(value.jaxpr)
      elif isinstance(value, extend.core.Jaxpr):
        yield from _equations(value)


_PROGRAMS = (extend.core.ClosedJaxpr, extend.core.Jaxpr)


def square_better(accuracy: dict[str, float]) -> bool:
  """Returns whether Square, which needs no gradients, is by far the strongest.

  That is a sign of masked gradients: accuracy more than 0.2 percentage points
  below that of everything else.

  Args:
    accuracy: Cumulative accuracy by attack, the clean one among them.
  """
  others = [value for name, value in accuracy.items() if name != 'square']
  if 'square' not in accuracy or len(others) < 2:
    return False
  return min(others) - accuracy['square'] > SQUARE_MARGIN
