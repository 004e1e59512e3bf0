"""Probabilities of a class's parts, on this process's own devices."""

from typing import Any

import jax
from jax import numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np

from pinpp_jax.errors import UserError


class Predictor:
  """Predicts the parts of padded images whose class is known.

  Every device predicts a whole batch of its own. So the result does not depend
  on the number of devices or processes, not even in the last bit: the same
  program runs on the same batch.

  Args:
    model: Linen module that takes `candidates`.
    variables: Its weights and statistics, numpy or on any devices.
    batch_size: Images per device and call.

  Raises:
    UserError: If batch_size is below 1.
  """

  def __init__(self, model: Any, variables: Any, batch_size: int):
    if batch_size < 1:
      raise UserError(f'batch_size={batch_size} is below 1.')
    devices = jax.local_devices()
    mesh = jax.make_mesh(
      (len(devices),), ('data',), (AxisType.Auto,), devices=devices
    )
    rows = PartitionSpec('data')
    self._rows = NamedSharding(mesh, rows)
    self._variables = jax.device_put(
      variables, NamedSharding(mesh, PartitionSpec())
    )
    self.batch_size = batch_size
    self.images = batch_size * len(devices)

    def predict(variables, image, ids):
      image = image.astype(jnp.float32) / 255
      output = model.apply(
        variables, image, train=False, parts=True, candidates=ids
      )
      return probabilities(output['parts'][0], ids)

    self._predict: Any = jax.jit(
      jax.shard_map(
        predict,
        mesh=mesh,
        in_specs=(PartitionSpec(), rows, rows),
        out_specs=rows,
        # Networks may hold constants, of which it cannot tell that they are the
        # same on all devices.
        check_vma=False,
      )
    )

  def __call__(self, image: np.ndarray, ids: np.ndarray) -> jax.Array:
    """Starts the prediction of up to `images` images.

    Args:
      image: uint8 (N, H, W, 3); H and W multiples of 32.
      ids: int32 (N, 1 + m) candidates, as in `LabelTable.candidates`.

    Returns:
      float32 (images, h, w, 1 + m), see `probabilities`; the rows behind N mean
      nothing. Not awaited.
    """
    rows = np.minimum(np.arange(self.images), len(image) - 1)
    put = lambda x: jax.device_put(x[rows], self._rows)
    return self._predict(self._variables, put(image), put(ids))

  @property
  def compilations(self) -> int:
    """Number of image shapes that were compiled."""
    return self._predict._cache_size()


def probabilities(logits: jax.Array, ids: jax.Array) -> jax.Array:
  """Returns the softmax over background and a class's parts.

  Args:
    logits: float (B, h, w, 1 + m).
    ids: int (B, 1 + m), 0 for background first; further zeros are padding.

  Returns:
    float32 (B, h, w, 1 + m), 0 where `ids` are padding.
  """
  counts = (ids > 0).at[:, 0].set(True)[:, None, None]
  masked = jnp.where(counts, logits.astype(jnp.float32), -jnp.inf)
  return jax.nn.softmax(masked, axis=-1)
