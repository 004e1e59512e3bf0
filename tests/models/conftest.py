"""Variables for networks, without compiling their initialisation."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def _fill(path, leaf) -> np.ndarray:
  name = path[-1].key
  if name in ('scale', 'var'):
    return np.ones(leaf.shape, np.float32)
  if name in ('bias', 'mean'):
    return np.zeros(leaf.shape, np.float32)
  rng = np.random.default_rng(leaf.size)
  scale = (2 / np.prod(leaf.shape[:-1])) ** 0.5
  return (rng.normal(size=leaf.shape) * scale).astype(np.float32)


@pytest.fixture(scope='session')
def variables_of() -> Callable[[Any], Any]:
  """Returns a function from a network to random variables for it."""

  def variables_of(model):
    init = functools.partial(model.init, train=False, parts=True)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    abstract = jax.eval_shape(init, jax.random.key(0), image)
    return jax.tree_util.tree_map_with_path(_fill, abstract)

  return variables_of
