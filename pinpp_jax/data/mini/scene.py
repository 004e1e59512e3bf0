"""One picture of the mini data set: background, clutter, object, occluder.

Everything is drawn three times too large as a map of ids, without
antialiasing. Its pixel centres are the truth; its box means are the weights
with which textures, made at the final size, are blended into the picture.
"""

from collections.abc import Callable
import dataclasses

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pinpp_jax.data.mini import shapes as shapes_lib
from pinpp_jax.data.mini.shapes import Kind, Shape

OVERSAMPLING = 3
# Strength of the background's texture, of 255: strong enough that a model
# trained on clean images leans on it, weak enough that one trained against an
# adversary (L-infinity, 4/255) finds the shapes instead.
TEXTURE = 26.0
SMALLEST_PART = 6  # pixels; an annotator would miss less

# One pool for the parts of all classes, so a colour tells nothing.
COLOURS = np.array(
  [
    (205, 60, 55),
    (228, 140, 50),
    (238, 212, 85),
    (85, 155, 70),
    (60, 165, 165),
    (60, 95, 185),
    (135, 80, 165),
    (232, 150, 182),
    (238, 238, 232),
    (45, 45, 55),
    (125, 85, 55),
  ],
  dtype=np.float64,
)
# For occluders.
NEUTRAL = np.array(
  [(110, 105, 100), (150, 146, 140), (80, 82, 76), (128, 120, 104)],
  dtype=np.float64,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
  """A picture and where its parts are seen.

  Attributes:
    image: uint8 (size, size, 3).
    shapes: the instances that can be seen, back to front.
    instance: uint8 (size, size), 0 or 1 + position in `shapes` of the
      foremost instance.
  """

  image: np.ndarray
  shapes: tuple[Shape, ...]
  instance: np.ndarray

  def visible(self, position: int) -> np.ndarray:
    """Bool (size, size): an instance with all that it contains."""
    return np.isin(self.instance, 1 + _family(self.shapes, position))


def draw(
  kind: Kind,
  *,
  rng: np.random.Generator,
  size: int,
  background: int,
  spoilt: bool = False,
) -> Scene:
  """A picture of one object.

  Args:
    kind: what to draw.
    rng: all that varies.
    size: side in pixels.
    background: which of `PATTERNS` lies behind.
    spoilt: blurred and dark, as a picture that annotators would discard.
  """
  base = rng.uniform(80, 185) + rng.uniform(-22, 22, 3)
  shapes = kind.draw(rng)
  # The object first, so that its pose is independent of what is around it.
  ids, layers = _layers(shapes, rng=rng, size=size)
  looks = _looks(kind, base, rng=rng, size=size)
  picture = _blend(ids, layers, looks, background, base, rng=rng, size=size)
  picture = _photograph(picture, rng=rng)
  if spoilt:
    blurred = Image.fromarray(picture).filter(
      ImageFilter.GaussianBlur(size / 24)
    )
    picture = (np.asarray(blurred) * 0.55).astype(np.uint8)
  centre = ids[
    OVERSAMPLING // 2 :: OVERSAMPLING, OVERSAMPLING // 2 :: OVERSAMPLING
  ]
  kept, instance = _drop_specks(
    shapes, np.where(centre > len(shapes), 0, centre)
  )
  return Scene(image=picture, shapes=kept, instance=instance)


# --- Where things are ---------------------------------------------------------


def _layers(
  shapes: list[Shape], *, rng: np.random.Generator, size: int
) -> tuple[np.ndarray, list[str]]:
  """The id map, and what each id is: '', 'part …', 'clutter' or 'occluder'.

  Ids are 0 for the background, 1.. for the shapes, then clutter and occluder.
  """
  side = size * OVERSAMPLING
  canvas = Image.new('L', (side, side))
  pen = ImageDraw.Draw(canvas)
  layers = [''] + [f'part {shape.part}' for shape in shapes]

  def fill(polygon: np.ndarray, value: int) -> None:
    pen.polygon([tuple(p) for p in (polygon * side).tolist()], fill=value)

  posed = _pose(shapes, rng=rng)
  for _ in range(rng.integers(1, 6)):
    layers.append('clutter')
    fill(
      _blob(rng.uniform(0, 1, 2), rng.uniform(0.03, 0.09), rng), len(layers) - 1
    )
  for position, polygons in enumerate(posed):
    for polygon in polygons:
      fill(polygon, position + 1)
  if rng.random() < 0.4:
    layers.append('occluder')
    fill(_occluder(rng), len(layers) - 1)
  return np.asarray(canvas), layers


def _pose(
  shapes: list[Shape], *, rng: np.random.Generator
) -> list[list[np.ndarray]]:
  """The shapes' polygons turned, stretched and moved into the unit square."""
  angle, shear = np.radians(rng.uniform(-25, 25)), rng.uniform(-0.15, 0.15)
  turn = np.array(
    [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
  )
  matrix = turn @ np.array([[1, shear], [0, rng.uniform(0.87, 1.15)]])
  matrix = matrix @ np.diag([rng.choice([-1.0, 1.0]), 1.0])
  posed = [[polygon @ matrix.T for polygon in s.polygons] for s in shapes]
  points = np.concatenate([polygon for group in posed for polygon in group])
  low, high = points.min(0), points.max(0)
  extent = rng.uniform(0.66, 0.95)
  scale = extent / (high - low).max()
  room = np.maximum((1 - scale * (high - low)) / 2, 0) + 0.02
  centre = 0.5 + rng.uniform(-1, 1, 2) * np.minimum(room, 0.14)
  shift = centre - scale * (low + high) / 2
  return [[scale * polygon + shift for polygon in group] for group in posed]


def _blob(
  centre: np.ndarray, radius: float, rng: np.random.Generator
) -> np.ndarray:
  """A small round, square or triangular thing."""
  count = int(rng.choice([3, 4, 12]))
  angle = rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count
  return centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _occluder(rng: np.random.Generator) -> np.ndarray:
  """A bar across the picture or a lump, in front of a tenth of it or less."""
  angle = rng.uniform(0, 2 * np.pi)
  direction = np.array([np.cos(angle), np.sin(angle)])
  middle = rng.uniform(0.2, 0.8, 2)
  if rng.random() < 0.5:
    (x0, y0), (x1, y1) = middle - direction * 2, middle + direction * 2
    return shapes_lib.bar(x0, y0, x1, y1, rng.uniform(0.05, 0.09))
  turn = np.linspace(0, 2 * np.pi, 14)[:-1]
  radius = rng.uniform(0.09, 0.15) * rng.uniform(0.8, 1.2, turn.size)
  return middle + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)


def _family(shapes: tuple[Shape, ...], position: int) -> np.ndarray:
  """The position of an instance and of all that it contains."""
  family = {position}
  for at, shape in enumerate(shapes):
    if shape.inside in family:
      family.add(at)
  return np.array(sorted(family))


def _drop_specks(
  shapes: list[Shape], instance: np.ndarray
) -> tuple[tuple[Shape, ...], np.ndarray]:
  """Leaves out instances of which next to nothing is seen.

  A speck inside another part becomes that part, any other background.
  """
  become = np.arange(len(shapes) + 1)
  kept: list[Shape] = []
  place: dict[int, int] = {}
  area = np.bincount(instance.ravel(), minlength=len(shapes) + 1)
  for at, shape in enumerate(shapes):
    whole = area[1 + _family(tuple(shapes), at)].sum()
    if whole >= SMALLEST_PART:
      place[at] = len(kept)
      inside = None if shape.inside is None else place[shape.inside]
      kept.append(dataclasses.replace(shape, inside=inside))
      become[at + 1] = len(kept)
    else:
      become[at + 1] = 0 if shape.inside is None else become[shape.inside + 1]
  return tuple(kept), become[instance].astype(np.uint8)


# --- What things look like ----------------------------------------------------


def _looks(
  kind: Kind, base: np.ndarray, *, rng: np.random.Generator, size: int
) -> dict[str, np.ndarray]:
  """A texture (size, size, 3) for every part, unlike what it lies on."""
  looks, chosen = {}, [base]
  for part in kind.parts:
    # Far from the background and, as far as possible, from the other parts.
    distance = [
      min(np.abs(colour - other).sum() for other in chosen)
      for colour in COLOURS
    ]
    far = [
      colour for colour, d in zip(COLOURS, distance, strict=True) if d > 140
    ]
    pool = far or [COLOURS[int(np.argmax(distance))]]
    colour = pool[rng.integers(len(pool))]
    chosen.append(colour)
    looks[f'part {part}'] = _surface(colour, rng=rng, size=size)
  return looks


def _surface(
  colour: np.ndarray, *, rng: np.random.Generator, size: int
) -> np.ndarray:
  """A colour with a faint pattern of any kind."""
  pattern = PATTERNS[rng.integers(len(PATTERNS))](*_grid(size, rng), rng)
  strength = rng.choice([0.0, 12.0, 24.0])
  return colour + rng.uniform(-14, 14, 3) + strength * pattern[..., None]


def _blend(
  ids: np.ndarray,
  layers: list[str],
  looks: dict[str, np.ndarray],
  background: int,
  base: np.ndarray,
  *,
  rng: np.random.Generator,
  size: int,
) -> np.ndarray:
  """The picture, float (size, size, 3): every look times its coverage."""
  pattern = PATTERNS[background](*_grid(size, rng), rng)
  tint = rng.uniform(0.6, 1.4, 3)
  ground = base + TEXTURE * pattern[..., None] * tint
  names = sorted(set(layers))
  picture = np.zeros((size, size, 3))
  look_ids = np.array([names.index(name) for name in layers])[ids]
  for number, name in enumerate(names):
    if not name:
      look = ground
    elif name in looks:
      look = looks[name]
    else:
      pool = NEUTRAL if name == 'occluder' else COLOURS
      look = _surface(pool[rng.integers(len(pool))], rng=rng, size=size)
    covered = (look_ids == number).reshape(
      size, OVERSAMPLING, size, OVERSAMPLING
    )
    picture += covered.mean((1, 3))[..., None] * look
  return picture


def _photograph(picture: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
  """Light from one side, brightness, contrast and noise; uint8."""
  size = picture.shape[0]
  across, down = np.meshgrid(*[np.linspace(-1, 1, size)] * 2)
  slope = rng.uniform(-0.1, 0.1, 2)
  light = 1 + slope[0] * across + slope[1] * down
  picture = picture * light[..., None]
  picture = 128 + rng.uniform(0.55, 1.1) * (picture - 128)
  picture = picture + rng.uniform(-15, 15)
  picture = picture + rng.uniform(1, 5) * rng.standard_normal(picture.shape)
  return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


# --- Patterns -----------------------------------------------------------------
# Each takes x and y, in the unit square with a random origin, and gives values
# in [-1, 1]. None of them turns into another one when mirrored.

Pattern = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _grid(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  x, y = np.meshgrid(*[(np.arange(size) + 0.5) / size] * 2)
  return x + rng.random(), y + rng.random()


def _wave(position: np.ndarray, count: float) -> np.ndarray:
  return np.sin(2 * np.pi * count * position)


def _noise(count: int, rng: np.random.Generator, size: int) -> np.ndarray:
  """Smooth noise with about `count` lumps along a side."""
  coarse = rng.uniform(-1, 1, (count, count)).astype(np.float32)
  fine = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
  return np.clip(1.4 * np.asarray(fine, dtype=np.float64), -1, 1)


def _dots(x: np.ndarray, y: np.ndarray, count: float) -> np.ndarray:
  """Round dots on a square lattice."""
  far = np.hypot((x * count) % 1 - 0.5, (y * count) % 1 - 0.5)
  return np.clip(4 * (0.33 - far), -1, 1)


def _rings(x: np.ndarray, y: np.ndarray, rng: np.random.Generator):
  """Circles around a point somewhere in the picture."""
  middle = rng.uniform(0.2, 0.8, 2)
  return _wave(np.hypot(x - x.min() - middle[0], y - y.min() - middle[1]), 9)


def _bricks(x: np.ndarray, y: np.ndarray, rng: np.random.Generator):
  """Courses of bricks with dark joints."""
  del rng
  row = np.floor(y * 7)
  joint = np.minimum(
    np.abs((y * 7) % 1 - 0.5),
    np.abs((x * 4 + 0.5 * (row % 2)) % 1 - 0.5) * 1.75,
  )
  return np.clip(10 * (joint - 0.12), -1, 1)


PATTERNS: tuple[Pattern, ...] = (
  lambda x, y, rng: _wave(y, 10),
  lambda x, y, rng: _wave(x, 10),
  lambda x, y, rng: _wave(x + y, 7),
  lambda x, y, rng: np.clip(2 * _wave(x, 4) * _wave(y, 4), -1, 1),
  lambda x, y, rng: _dots(x, y, 8),
  _rings,
  _bricks,
  lambda x, y, rng: _wave(y + 0.04 * _wave(x, 4), 5),
  lambda x, y, rng: np.maximum(_wave(x, 5) ** 8, _wave(y, 5) ** 8) * 2 - 1,
  lambda x, y, rng: np.clip(2 * _wave(x + y, 5) * _wave(x - y, 5), -1, 1),
  lambda x, y, rng: _noise(30, rng, x.shape[0]),
  lambda x, y, rng: _noise(8, rng, x.shape[0]),
)
