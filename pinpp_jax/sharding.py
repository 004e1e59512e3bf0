"""One mesh of all devices, and the shardings of arrays on it."""

from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np

from pinpp_jax.errors import UserError

# Arrays of fewer elements are not worth splitting.
SMALL = 2**12


def mesh(fsdp: int = 1) -> jax.sharding.Mesh:
  """Returns the mesh of all devices, with the axes 'data' and 'fsdp'.

  A batch is split over both, a training state over 'fsdp' alone.

  Args:
    fsdp: Devices along the second axis.

  Raises:
    UserError: If `fsdp` does not divide the number of devices.
  """
  devices = jax.device_count()
  if fsdp < 1 or devices % fsdp:
    raise UserError(
      f'fsdp={fsdp} does not divide {devices} devices; use 1, which splits'
      f' nothing, or a divisor of {devices}.'
    )
  # Explicit axes, the default since JAX 0.9, refuse the per-example gathers
  # that attacks and the parts loss need.
  shape, types = (devices // fsdp, fsdp), (AxisType.Auto, AxisType.Auto)
  return jax.make_mesh(shape, ('data', 'fsdp'), types)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Returns the sharding under which every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def split(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """Returns the sharding of each array of a training state.

  Arrays of `SMALL` elements or more are split over the mesh axis 'fsdp' along
  their longest divisible dimension; all others are replicated. With one device
  along that axis nothing is split.
  """
  devices = mesh.shape['fsdp']

  def one(x):
    fitting = [i for i, n in enumerate(x.shape) if n % devices == 0]
    if devices == 1 or x.size < SMALL or not fitting:
      return replicated(mesh)
    longest = max(fitting, key=lambda i: x.shape[i])
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, 'fsdp'))

  return jax.tree.map(one, tree)


def put(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> Any:
  """Joins the processes' parts of a batch into global arrays.

  Each array is split over the devices along its first axis.
  """
  sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
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
