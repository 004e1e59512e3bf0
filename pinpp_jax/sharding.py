"""One data-parallel mesh, and how arrays sit on it."""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np

from pinpp_jax.errors import UserError


def mesh() -> jax.sharding.Mesh:
  """Returns the mesh in which every device is one point of a 'data' axis."""
  # Explicit axes, the default since JAX 0.9, refuse the per-example gathers
  # that attacks and the parts loss need.
  return jax.make_mesh((jax.device_count(),), ('data',), (AxisType.Auto,))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Returns the sharding under which every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def put(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> Any:
  """Joins the processes' parts of a batch into global arrays.

  Each array is split over the devices along its first axis.
  """
  sharding = NamedSharding(mesh, PartitionSpec('data'))
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), batch
  )


def check_batch_size(name: str, batch_size: int) -> None:
  """Raises `UserError` unless a global batch splits evenly over the devices."""
  devices = jax.device_count()
  if batch_size < 1 or batch_size % devices:
    raise UserError(
      f'{name}={batch_size} does not split over {devices} devices; use a'
      f' positive multiple of {devices}.'
    )
