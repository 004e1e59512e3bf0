"""Square: random search over square windows, without gradients.

Andriushchenko et al., 'Square Attack', 2020, arXiv:1912.00049, with the
constants and the order of AutoAttack; its L1 form is that of Croce & Hein,
2021, arXiv:2103.01208.
"""

from collections.abc import Callable
import dataclasses
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pinpp_jax.attacks import hyperplanes, loops, projections
from pinpp_jax.attacks.loops import Inputs
from pinpp_jax.errors import UserError

NORMS = ('linf', 'l2', 'l1')
LOSSES = ('margin',)

# The share of the pixels that a window covers halves after these iterations.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
TINY = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square:
  """Changes windows at random places, keeping changes that lower the margin.

  An image changes until its margin, the label's logit minus the largest other
  one, is no longer positive. Returns for each image the last iterate, in the
  ball and in [0, 1], if it is misclassified, else the clean image. An image
  misclassified from the start is attacked like any other. Place, sign and
  orientation of a window are drawn for each image; AutoAttack shares most of
  them in a batch, so runs agree in distribution.

  Attributes:
    eps: Radius of the ball, for pixels in [0, 1]; a Python float.
    norm: 'linf', 'l2' or 'l1'.
    queries: Proposals per restart; each costs a forward pass, as does the
      start.
    p_init: Share of the pixels that the first windows cover. The schedule is
      AutoAttack's for 10,000 queries, for any number of queries.
    restarts: Runs, each on the images that are still robust.
    loss: Loss that is lowered: 'margin'.
    loop: 'auto', 'host' or 'scan'; see `loops.run`.
  """

  eps: float
  norm: str = 'linf'
  queries: int = 5000
  p_init: float = 0.8
  restarts: int = 1
  loss: str = 'margin'
  loop: str = 'auto'

  def __post_init__(self):
    loops.check(self.loop)
    if self.norm not in NORMS:
      raise UserError(f'norm={self.norm!r} of square is not one of {NORMS}.')
    if self.loss not in LOSSES:
      raise UserError(f'loss={self.loss!r} of square is not one of {LOSSES}.')
    if not 0 < self.p_init <= 1:
      raise UserError(f'p_init={self.p_init} of square is not in (0, 1].')

  def __call__(
    self,
    keys: jax.Array,
    predict: Callable[[jax.Array], jax.Array],
    image: jax.Array,
    label: jax.Array,
    rounds: range | None = None,
  ) -> jax.Array:
    """Returns adversarial or clean images (B, H, W, C).

    Runs only the given `rounds`, if any.

    Raises:
      UserError: The images are not square or, except for linf, smaller than
        5 x 5 pixels.
    """
    height, width = image.shape[1:3]
    if height != width:
      raise UserError(f'square needs square images, not {height} x {width}.')
    if self.norm != 'linf' and height < 5:
      raise UserError(f'square in {self.norm} needs images of 5 x 5 or more.')
    return loops.run(self, keys, predict, image, label, rounds)

  @property
  def rounds(self) -> int:
    """Returns the number of restarts."""
    return self.restarts

  @property
  def length(self) -> int:
    """Returns the proposals of one restart."""
    return self.queries

  def prepare(self, inputs: Inputs):
    """Returns the clean images, all marked as robust."""
    return inputs.image, jnp.ones(inputs.label.shape, bool)

  def start(self, number, result, inputs: Inputs):
    """Returns (image, margin, fooled, robust, keys) at a restart's start."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(inputs.keys, number)
    # Proposals fold in their number, from 0.
    first = jax.vmap(lambda key: jax.random.fold_in(key, self.queries))(keys)
    move = jax.vmap(self._begin, (0, None))(first, inputs.image[0])
    x = self._into_ball(inputs.image, move)
    return x, *_evaluate(inputs, x), result[1], keys

  @property
  def stages(self):
    """Returns the functions of a step, which makes one proposal per image."""
    return self._draw, self._move, self._enter, self._judge

  def step(self, number, carry, inputs: Inputs):
    """Returns the carry after one proposal per image."""
    return self.consider(*self._draw(number, carry, inputs), inputs)

  def consider(self, carry, chosen: 'Draws', side, inputs: Inputs):
    """Returns the carry after the proposals of given draws, (B, ...)."""
    state = carry, chosen, side
    for stage in self.stages[1:]:
      state = stage(None, state, inputs)
    return state

  def _draw(self, number, carry, inputs: Inputs):
    size, channels = inputs.image.shape[2:]
    side = self.side(number, size)

    def one(key):
      return draw(jax.random.fold_in(key, number), size, side, channels)

    return carry, jax.vmap(one)(carry[-1]), side

  def _move(self, number, state, inputs: Inputs):
    del number
    carry, chosen, side = state
    move = jax.vmap(self.propose, (0, 0, None))
    return carry, move(chosen, carry[0] - inputs.image, side)

  def _enter(self, number, state, inputs: Inputs):
    del number
    carry, delta = state
    return carry, self._into_ball(inputs.image, delta)

  def _judge(self, number, state, inputs: Inputs):
    del number
    carry, new = state
    x, margin, fooled, robust, keys = carry
    new_margin, new_fooled = _evaluate(inputs, new)
    better = self.active(carry) & improves(new_margin, margin)
    x = jnp.where(better[:, None, None, None], new, x)
    margin = jnp.where(better, new_margin, margin)
    return x, margin, jnp.where(better, new_fooled, fooled), robust, keys

  def active(self, carry):
    """Returns which images are not yet misclassified."""
    _, margin, _, robust, _ = carry
    return robust & (margin > 0)

  def finish(self, carry, result, inputs: Inputs):
    """Returns the result updated by this restart."""
    del inputs
    x, _, fooled, robust, _ = carry
    # A tie ends the search, but argmax decides.
    broken = fooled & robust
    image = jnp.where(broken[:, None, None, None], x, result[0])
    return image, robust & ~broken

  def side(self, number: int | jax.Array, size: int) -> jax.Array:
    """Returns the window's side in pixels at iteration `number`, from 0."""
    shares = [self.p_init / 2**n for n in range(len(HALVINGS) + 1)]
    least = 1 if self.norm == 'linf' else 3
    sides = [max(round((p * size * size) ** 0.5), least) for p in shares]
    if self.norm != 'linf':
      sides = [side + (side % 2 == 0) for side in sides]
    sides = jnp.asarray([min(side, size) for side in sides], jnp.int32)
    return sides[jnp.sum(number > jnp.asarray(HALVINGS))]

  def propose(
    self,
    chosen: 'Draws',
    delta: jax.Array,
    side: jax.Array,
  ) -> jax.Array:
    """Returns one image's next move, (H, W, C), from its best one.

    The move may leave the ball.
    """
    size, _, channels = delta.shape
    # As H rows of W * C, which XLA's CPU backend computes fastest.
    rows = delta.reshape(size, -1)
    first = window(chosen.first, side, size, channels)
    sign = chosen.sign.astype(delta.dtype)
    if self.norm == 'linf':
      move = along_row(2 * self.eps * sign, size)
      return (rows + jnp.where(first, move, 0)).reshape(delta.shape)
    second = window(chosen.second, side, size, channels)
    # Norms of the whole move, and of each channel in one and in both windows.
    whole = _whole(self.norm, rows)
    inside = _length(self.norm, jnp.where(first, rows, 0), channels)
    both = _length(self.norm, jnp.where(first | second, rows, 0), channels)
    if self.norm == 'l2':
      left = jnp.maximum(self.eps**2 - whole**2, 0) / channels
      budget = jnp.sqrt(left + both**2)
    else:
      left = jnp.maximum(self.eps - whole, 0) / channels
      budget = (left + both) * channels
    shape = eta(self.norm, chosen.first, side, size, channels, chosen.turned)
    new = shape.astype(delta.dtype) * along_row(sign, size)
    new += rows * along_row(1 / (TINY + inside), size)
    new = jnp.where(first, new, 0)
    budget /= TINY + _length(self.norm, new, channels)
    kept = jnp.where(second, 0, rows)
    new = jnp.where(first, new * along_row(budget, size), kept)
    return new.reshape(delta.shape)

  def _begin(self, key, image):
    """Returns one image's first move: stripes for linf, else tiles.

    `image` gives the shape alone.
    """
    size, _, channels = image.shape
    if self.norm == 'linf':
      # Larger than any radius; `_into_ball` clips it to the ball.
      sign = jax.random.rademacher(key, (1, size, channels), image.dtype)
      return jnp.broadcast_to(sign, image.shape)
    turned, sign = jax.random.split(key)
    count = grid(size)[2]
    turned = jax.random.bernoulli(turned, shape=(count, count))
    sign = jax.random.rademacher(sign, (count, count, channels), image.dtype)
    return tiles(self.norm, turned, sign, size).astype(image.dtype)

  def _into_ball(self, image, delta):
    """Returns images moved by delta, projected to the ball and the box."""
    if self.norm == 'linf':
      low, high = image - self.eps, image + self.eps
      return jnp.clip(jnp.clip(image + delta, low, high), 0, 1)
    if self.norm == 'l2':
      delta = delta / (hyperplanes.length('l2', delta) + TINY) * self.eps
      return jnp.clip(image + delta, 0, 1)
    return projections.l1(image + delta, image, self.eps * (1 - 1e-6))


def improves(new: jax.Array, margin: jax.Array) -> jax.Array:
  """Returns where a proposal's margin is lower than the best one."""
  return new < margin


class Draws(NamedTuple):
  """One image's random numbers of one iteration.

  Attributes:
    first: (2,) int, row and column where the changed window starts.
    second: (2,) int, the same of the window that gives up its share of eps.
    turned: bool, whether the pattern is transposed.
    sign: (C,) of -1 and 1.
  """

  first: jax.Array
  second: jax.Array
  turned: jax.Array
  sign: jax.Array


def draw(key: jax.Array, size: int, side: jax.Array, channels: int) -> Draws:
  """Returns the random numbers of one iteration for one image."""
  # One call of the generator per image, which compiles fast.
  u = jax.random.uniform(key, (5 + channels,), jnp.float32)
  # As in AutoAttack the last row and column are never covered.
  places = jnp.floor(u[:4] * (size - side)).astype(jnp.int32)
  sign = jnp.where(u[5:] > 0.5, 1.0, -1.0).astype(jnp.float32)
  return Draws(places[:2], places[2:4], u[4] > 0.5, sign)


def tiles(norm: str, turned: jax.Array, sign: jax.Array, size: int):
  """Returns the start for l2 and l1, (H, W, C): a grid of patterns.

  Args:
    norm: 'l2' or 'l1'.
    turned: (n, n) bool of an n x n grid, whether a pattern is transposed.
    sign: (n, n, C) of -1 and 1.
    size: H, which is W.
  """
  side, margin, count = grid(size)
  origin = jnp.zeros(2, jnp.int32)
  pattern = eta(norm, origin, side, side, 1, False)[None, None]
  turned = turned[:, :, None, None]
  pattern = jnp.where(turned, jnp.swapaxes(pattern, 2, 3), pattern)
  full = pattern[..., None] * sign[:, :, None, None]
  full = jnp.swapaxes(full, 1, 2).reshape(count * side, count * side, -1)
  rest = size - margin - count * side
  return jnp.pad(full, ((margin, rest), (margin, rest), (0, 0)))


def grid(size: int) -> tuple[int, int, int]:
  """Returns side, first pixel and number per axis of the start's tiles."""
  side = size // 5
  margin = (size - 5 * side) // 2
  # AutoAttack fails where a sixth tile would cross the edge.
  return side, margin, (size - margin) // side


def window(
  place: jax.Array, side: jax.Array, size: int, channels: int
) -> jax.Array:
  """Returns the mask (H, W * C) of a square that starts at a place."""
  offset = jnp.arange(size)[None] - place[:, None]
  rows, columns = ((offset >= 0) & (offset < side)).astype(jnp.int8)
  columns = jnp.repeat(columns, channels)
  return (rows[:, None] & columns[None]) > 0


def eta(
  norm: str,
  place: jax.Array,
  side: int | jax.Array,
  size: int,
  channels: int,
  turned: bool | jax.Array,
) -> jax.Array:
  """Returns the pattern of a window, (H, W * C), 0 outside, of norm 1.

  Positive in the upper half of the window and negative in the lower one;
  `turned` transposes it. Each half is a hill: a sum of squares of half width 0,
  1, ... around its centre, with weights 1/(k+1)^2 for l2 and 1/(k+1)^4 for l1,
  which is the smaller one of two profiles. The norm is that of each channel.
  """
  height = _profile(norm, side, size)
  half, offset = side // 2, jnp.arange(size)
  rows, columns = offset - place[0], offset - place[1]
  along = jnp.where(turned, columns, rows)
  across = height(jnp.where(turned, rows, columns), side)
  # The lengths depend neither on the place nor on the image.
  flat = height(offset, side)[None]
  heights = half, side - half
  lengths = [
    _whole(norm, jnp.minimum(height(offset, h)[:, None], flat)) for h in heights
  ]
  parts = sum((length > 0).astype(flat.dtype) for length in lengths)
  scale = jnp.sqrt(parts) if norm == 'l2' else parts

  def hill(offset, extent, length):
    length = jnp.where(length > 0, length, 1) * scale
    profiles = height(offset, extent) / length, across / length
    first, second = (jnp.where(turned, *x) for x in (profiles[::-1], profiles))
    second = jnp.repeat(second, channels)
    return jnp.minimum(first[:, None], second[None])

  upper = hill(along, half, lengths[0])
  return upper - hill(along - half, side - half, lengths[1])


def _profile(norm, side, size):
  """Returns a function (offset, extent) to the profile of a hill.

  At distance m from the centre it is the sum of the weights over k >= m, read
  from a table of sums.
  """
  power = 2 if norm == 'l2' else 4
  weights = [1 / (k + 1) ** power for k in range(size)]
  # Summed from the smallest, for accuracy.
  table = [*itertools.accumulate(reversed(weights), initial=0.0)][::-1]
  table = jnp.asarray(table, jnp.result_type(float))
  levels = side // 2 + 1
  table = jnp.maximum(table - table[jnp.minimum(levels, size)], 0)

  def height(offset, extent):
    distance = jnp.clip(jnp.abs(offset - extent // 2), 0, size - 1)
    inside = (offset >= 0) & (offset < extent)
    return jnp.where(inside, table[distance], 0)

  return height


def along_row(values: jax.Array, size: int) -> jax.Array:
  """Returns (1, W * C) of values (C,) of the channels."""
  return jnp.tile(values, size)[None]


def _evaluate(inputs: Inputs, x):
  """Returns the margins (B,), and whether argmax is not the label (B,)."""
  logits = inputs.network(x)
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  own = jax.nn.one_hot(inputs.label, logits.shape[-1], dtype=bool)
  other = jnp.max(jnp.where(own, -jnp.inf, logits), axis=-1)
  margin = jnp.sum(jnp.where(own, logits, 0), axis=-1) - other
  return margin, jnp.argmax(logits, axis=-1) != inputs.label


def _length(norm: str, rows, channels: int):
  """Returns the L2 or L1 norm of each channel of (H, W * C), (C,)."""
  size = jnp.square(rows) if norm == 'l2' else jnp.abs(rows)
  total = jnp.sum(jnp.sum(size, axis=0).reshape(-1, channels), axis=0)
  return jnp.sqrt(total) if norm == 'l2' else total


def _whole(norm: str, x):
  """Returns the L2 or L1 norm of an array, a scalar."""
  row = x.reshape(-1)
  if norm == 'l2':
    return jnp.sqrt(jnp.sum(jnp.square(row)))
  return jnp.sum(jnp.abs(row))
