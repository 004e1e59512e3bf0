"""What a robustness evaluation asks of the devices, chunk by chunk."""

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

# Images whose logits tell one network from another.
PROBE = 8

# The key of the clean pass: no attack has this number.
_CLEAN = len(versions.OPTIONS)

# Rounding that a success may be outside the ball by: absolute, relative.
_SLACK = {'linf': (1e-6, 0.0), 'l2': (0.0, 1e-5), 'l1': (0.0, 1e-5)}


class Strike(NamedTuple):
  """What an attack made of some images.

  Attributes:
    broken: (n,) int, the images whose success holds.
    points: (n, H, W, C) float32, the adversarial images.
    refused: Successes outside the ball or the box.
    unconfirmed: Points that are classified right after all, and images that
      change their class without moving.
  """

  broken: np.ndarray
  points: np.ndarray
  refused: int
  unconfirmed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """An evaluation: constant while it runs.

  Attributes:
    network: From images to logits, or from (images, keys) if `random`.
    search: What the attacks look at.
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
    # Made float on the host: a device may divide a little differently.
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
    """Returns the first images' logits; a random network has none."""
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
    # The number that keys fold in does not hang on the version.
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
    # An image that was right a moment ago and did not move is a tie.
    holds = valid & moved[where]
    return Strike(
      broken=chosen[where[holds]],
      points=points[holds],
      refused=int((~valid).sum()),
      unconfirmed=int((moved & ~wrong).sum() + (valid & ~holds).sum()),
    )


class Placing:
  """How images are cut into chunks of few sizes, and put on devices.

  Attributes:
    together: Whether several processes share the work; all of them must.
    writes: Whether this process keeps what is found, for all that share it.

  Args:
    batch_size: Images in a full chunk, rounded up to split over the devices.
    devices: Those of all processes if None.
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
    """Returns images cut into full chunks and a rest."""
    size = self._sizes[-1]
    return [chosen[i : i + size] for i in range(0, len(chosen), size)]

  def size(self, images: int) -> int:
    """Returns the smallest chunk that holds so many images."""
    return next(size for size in self._sizes if size >= images)

  def put(self, x: np.ndarray) -> jax.Array:
    """Returns an array that is split over the devices along its first axis.

    Every process gives the whole of it.
    """
    return jax.make_array_from_callback(
      x.shape, self._sharding, lambda place: x[place]
    )

  def agreed(self, x: np.ndarray) -> np.ndarray:
    """Returns process 0's value of what each computed on its own CPU."""
    return processes.of_first({'x': x})['x'] if self.together else x


def as_partial(
  function: Callable[..., jax.Array],
) -> jax.tree_util.Partial:
  """Returns a function as a pytree that can be called."""
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
  """Returns (B,) bool, whether points are in the ball, the box and finite.

  Computed in float64; what rounding in float32 may add to the radius is 1e-6
  for linf and 1e-5 of it for l2 and l1.
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
  """Returns (B,) bool: whether x gets another class, and whether it moved.

  Logits that are not finite are another class: a broken network is not right.
  """
  found = logits(network, x)
  right = jnp.argmax(found, axis=-1) == label
  right &= jnp.isfinite(found).all(-1)
  return ~right, (x != image).any((1, 2, 3))
