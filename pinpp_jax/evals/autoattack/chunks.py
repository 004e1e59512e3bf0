"""The device work of a robustness evaluation, in chunks of images."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np

from pinpp_jax.errors import UserError
from pinpp_jax.evals.autoattack import versions
from pinpp_jax.machine import processes

# Number of images whose logits identify a network.
PROBE = 8

# Number of the clean pass, for its keys: no attack has it.
_CLEAN = len(versions.OPTIONS)

# Tolerance of the radius for rounding: absolute, relative.
_SLACK = {'linf': (1e-6, 0.0), 'l2': (0.0, 1e-5), 'l1': (0.0, 1e-5)}


class Strike(NamedTuple):
  """The result of one round of an attack on a chunk.

  Attributes:
    broken: (n,) int, the images with a confirmed success.
    points: (n, H, W, C) float32, their adversarial images.
    refused: Number of successes outside the ball or the box.
    unconfirmed: Number of points that are classified right when checked, and
      of images that are misclassified without having changed.
  """

  broken: np.ndarray
  points: np.ndarray
  refused: int
  unconfirmed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """The inputs and options of an evaluation.

  Attributes:
    network: Maps images to logits, or (images, keys) if `random`.
    search: The network that the attacks use.
    images: (N, H, W, C) float in [0, 1] or uint8.
    labels: (N,) int32.
    ids: (N,) uint32, from which images' keys are made.
    key: Of the whole evaluation.
    plan: Attacks by name, in order.
    norm: 'linf', 'l2' or 'l1'.
    eps: Radius.
    random: Whether the network takes keys.
    individual: Whether every attack gets all images.
    placing: Sizes of chunks, and devices.
  """

  network: jax.tree_util.Partial
  search: jax.tree_util.Partial
  images: np.ndarray
  labels: np.ndarray
  ids: np.ndarray
  key: jax.Array
  plan: dict[str, versions.Attack]
  norm: str
  eps: float
  random: bool
  individual: bool
  placing: 'Placing'

  def chunk(self, chosen: np.ndarray, attack: int = _CLEAN) -> tuple[Any, ...]:
    """Returns keys, images and labels on the devices, padded to a chunk."""
    padded = np.resize(chosen, self.placing.size(len(chosen)))
    put = self.placing.put
    # Converted on the host: a device may round the division differently.
    image = put(as_float(self.images[padded]))
    keys = _keys(self.key, attack, put(self.ids[padded]))
    return keys, image, put(self.labels[padded])

  def bound(self, keys: jax.Array) -> jax.tree_util.Partial:
    """Returns the network as a function of images alone."""
    if self.random:
      return jax.tree_util.Partial(_with_keys, self.network, keys)
    return self.network

  def classify(self, chosen: np.ndarray) -> np.ndarray:
    """Returns the clean logits of at most a chunk of images, (n, K)."""
    keys, image, _ = self.chunk(chosen)
    return processes.fetch(logits(self.bound(keys), image))[: len(chosen)]

  def probe(self) -> np.ndarray:
    """Returns the first images' logits; none for a random network."""
    if self.random:
      return np.zeros((0, 0), np.float32)
    first = np.arange(min(PROBE, len(self.images)))
    chunks = self.placing.chunks(first)
    return np.concatenate([self.classify(chunk) for chunk in chunks])

  def attack(self, name: str, turn: int, chosen: np.ndarray) -> Strike:
    """Runs one round of an attack on at most a chunk of images.

    Every success is checked again: its class by the network, its place in
    float64 on the host.
    """
    # The number that keys fold in does not depend on the version.
    number = [*versions.OPTIONS].index(name)
    keys, image, label = self.chunk(chosen, number)
    rounds = range(turn, turn + 1)
    x = self.plan[name](keys, self.search, image, label, rounds=rounds)
    judged = _judge(self.bound(keys), x, image, label)
    wrong, moved = (processes.fetch(flag)[: len(chosen)] for flag in judged)
    where = np.flatnonzero(wrong)
    points = processes.fetch(x[where]).astype(np.float32)
    clean = as_float(self.images[chosen[where]])
    valid = self.placing.agreed(within(self.norm, self.eps, points, clean))
    # A success without a change of the image is a tie of logits.
    holds = valid & moved[where]
    return Strike(
      broken=chosen[where[holds]],
      points=points[holds],
      refused=int((~valid).sum()),
      unconfirmed=int((moved & ~wrong).sum() + (valid & ~holds).sum()),
    )


class Placing:
  """Cuts images into chunks of few sizes and puts them on devices.

  Attributes:
    together: Whether several processes, then all of them, share the work.
    writes: Whether this process writes the files.

  Args:
    batch_size: Images in a full chunk, rounded up to a multiple of the devices.
    devices: The devices to use; None for those of all processes.
  """

  def __init__(self, batch_size: int, devices: Sequence[Any] | None):
    if batch_size < 1:
      raise UserError(f'batch_size={batch_size} of autoattack is below 1.')
    devices = list(devices or jax.devices())
    here = jax.process_index()
    self.together = any(device.process_index != here for device in devices)
    self.writes = here == 0 or not self.together
    fit = lambda n: math.ceil(n / len(devices)) * len(devices)
    # Three sizes, so that few programs are compiled and little is padded.
    self._sizes = sorted({fit(batch_size / share) for share in (1, 2, 4)})
    mesh = jax.make_mesh(
      (len(devices),), ('data',), (AxisType.Auto,), devices=devices
    )
    self._sharding = NamedSharding(mesh, PartitionSpec('data'))

  def chunks(self, chosen: np.ndarray) -> list[np.ndarray]:
    """Returns images cut into full chunks and a remainder."""
    size = self._sizes[-1]
    return [chosen[i : i + size] for i in range(0, len(chosen), size)]

  def size(self, images: int) -> int:
    """Returns the size of the smallest chunk that holds so many images."""
    return next(size for size in self._sizes if size >= images)

  def put(self, x: np.ndarray) -> jax.Array:
    """Returns an array that is split over the devices along its first axis.

    Every process must pass the whole array.
    """
    return jax.make_array_from_callback(
      x.shape, self._sharding, lambda place: x[place]
    )

  def agreed(self, x: np.ndarray) -> np.ndarray:
    """Returns process 0's value of an array computed on every CPU."""
    return processes.of_first({'x': x})['x'] if self.together else x


def as_partial(
  function: Callable[..., jax.Array],
) -> jax.tree_util.Partial:
  """Returns a function as a callable pytree."""
  if isinstance(function, jax.tree_util.Partial):
    return function
  return jax.tree_util.Partial(function)


def as_float(image: np.ndarray) -> np.ndarray:
  """Returns images as float32 in [0, 1]."""
  if image.dtype == np.uint8:
    return image.astype(np.float32) / np.float32(255)
  return image.astype(np.float32)


def within(
  norm: str, eps: float, x: np.ndarray, image: np.ndarray
) -> np.ndarray:
  """Returns (B,) bool, whether points are in the ball and the box, and finite.

  Computed in float64, with a tolerance for float32 rounding of the radius: 1e-6
  for linf and 1e-5 of the radius for l2 and l1.
  """
  flat = x.reshape(len(x), math.prod(x.shape[1:]))
  delta = np.abs(flat.astype(np.float64) - image.reshape(flat.shape))
  absolute, relative = _SLACK[norm]
  if norm == 'linf':
    far = delta.max(1, initial=0)
  else:
    far = np.sqrt((delta**2).sum(1)) if norm == 'l2' else delta.sum(1)
  # NaN compares as False.
  boxed = ((flat >= 0) & (flat <= 1)).all(1)
  return boxed & (far <= eps * (1 + relative) + absolute)


@functools.partial(jax.jit, static_argnums=1)
def _keys(key, attack: int, ids):
  return jax.vmap(jax.random.fold_in, (None, 0))(
    jax.random.fold_in(key, attack), ids
  )


def _with_keys(network, keys, image):
  return network(image, keys)


@jax.jit
def logits(network: jax.tree_util.Partial, image: jax.Array) -> jax.Array:
  """Returns float32 logits (B, K)."""
  return network(image).astype(jnp.float32)


@jax.jit
def _judge(network, x, image, label):
  """Returns (B,) bool: whether x is misclassified, and whether it changed.

  Logits that are not finite count as misclassified.
  """
  found = logits(network, x)
  right = jnp.argmax(found, axis=-1) == label
  right &= jnp.isfinite(found).all(-1)
  return ~right, (x != image).any((1, 2, 3))
