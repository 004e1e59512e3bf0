"""Exchange of arrays between the processes of a run."""

from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np


def fetch(tree: Any) -> Any:
  """Returns the whole value of every array, on every process, as numpy.

  Arrays sharded over several processes are gathered. Every process must call
  this at the same point.
  """

  def one(x):
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
      return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)

  return jax.tree.map(one, jax.device_get(tree) if _all_here(tree) else tree)


def _all_here(tree: Any) -> bool:
  """Whether one device_get, which overlaps the copies, can fetch the tree."""
  return all(
    x.is_fully_addressable
    for x in jax.tree.leaves(tree)
    if isinstance(x, jax.Array)
  )


def sum_of_all(tree: Any) -> Any:
  """Adds up host arrays (same shapes everywhere) over all processes.

  With one process it returns the arrays. Every process must call this at the
  same point.

  Returns:
    A tree of numpy arrays with the dtypes given: the values are sent as bytes,
    because JAX would convert 64-bit numbers to 32 bits.
  """
  if jax.process_count() == 1:
    return jax.tree.map(np.asarray, tree)

  def one(x):
    x = np.asarray(x)
    sent = np.frombuffer(np.ascontiguousarray(x).tobytes(), np.uint8)
    got = np.asarray(multihost_utils.process_allgather(sent))
    return sum(
      np.frombuffer(row.tobytes(), x.dtype).reshape(x.shape) for row in got
    )

  return jax.tree.map(one, tree)


def rows_of_all(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the rows of all processes, those of process 0 first.

  Every process must give the same number of rows.
  """
  return jax.tree.map(
    np.asarray, multihost_utils.process_allgather(batch, tiled=True)
  )


def of_first(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the arrays of process 0, on every process.

  Names, shapes and types must be the same everywhere. The values are sent as
  bytes, because JAX would convert 64-bit numbers to 32 bits.
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
