"""What several processes of one evaluation have in common."""

from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np


def fetch(x: Any) -> np.ndarray:
  """Returns the whole value of an array, on every process that holds some.

  All of them must call this at the same point.
  """
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    x = multihost_utils.process_allgather(x, tiled=True)
  return np.asarray(x)


def rows_of_all(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the rows of every process, those of process 0 first.

  Each must give as many.
  """
  return jax.tree.map(
    np.asarray, multihost_utils.process_allgather(batch, tiled=True)
  )


def of_first(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the arrays of process 0, on every process.

  Names, shapes and types must be the same everywhere. They travel as bytes,
  because jax would halve 64-bit numbers.
  """
  sent = b''.join(np.ascontiguousarray(x).tobytes() for x in arrays.values())
  got = np.asarray(
    multihost_utils.broadcast_one_to_all(np.frombuffer(sent, np.uint8))
  ).tobytes()
  found, start = {}, 0
  for name, x in arrays.items():
    rest = got[start : start + x.nbytes]
    found[name] = np.frombuffer(rest, x.dtype).reshape(x.shape).copy()
    start += x.nbytes
  return found
