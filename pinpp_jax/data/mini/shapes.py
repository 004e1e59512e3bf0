"""The objects of the mini data set, drawn as polygons.

Coordinates are the object's own: x to the right, y down, the object roughly
in [-1, 1] x [-1, 1]. Later shapes lie in front of earlier ones. Every drawing
takes a generator and varies its proportions, so no two objects are alike.

A class is told by which parts it has and how they are arranged: wheels, hubs,
bodies, sails, tails, doors, windows and eyes appear in several classes.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

Polygon = np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
  """One instance of a part.

  Attributes:
    part: bare name of the part ('' for the object as a whole).
    polygons: float (n, 2) arrays of x, y; the instance is their union.
    inside: position, in the drawing, of the instance that contains it.
  """

  part: str
  polygons: tuple[Polygon, ...]
  inside: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
  """An object class: its name, bare part names, child -> parent, drawing."""

  name: str
  parts: tuple[str, ...]
  inside: dict[str, str] = dataclasses.field(default_factory=dict)
  draw: Callable[[np.random.Generator], list[Shape]]

  def full_name(self, part: str) -> str:
    """The part's name in the release: 'wagon wheel'; 'star' as a whole."""
    return f'{self.name} {part}' if part else self.name


def box(x: float, y: float, width: float, height: float) -> Polygon:
  """An upright rectangle around (x, y)."""
  return trapezoid(x, y, width, width, height)


def trapezoid(
  x: float, y: float, top: float, bottom: float, height: float
) -> Polygon:
  """A symmetric trapezoid around (x, y)."""
  return np.array(
    [
      (x - top / 2, y - height / 2),
      (x + top / 2, y - height / 2),
      (x + bottom / 2, y + height / 2),
      (x - bottom / 2, y + height / 2),
    ]
  )


def disc(
  x: float,
  y: float,
  radius: float,
  radius_y: float | None = None,
  start: float = 0.0,
  stop: float = 360.0,
) -> Polygon:
  """An ellipse around (x, y), or the chord-cut piece between two angles."""
  angle = np.radians(np.linspace(start, stop, 28))
  radius_y = radius if radius_y is None else radius_y
  return np.stack(
    [x + radius * np.cos(angle), y + radius_y * np.sin(angle)], axis=1
  )


def bar(x0: float, y0: float, x1: float, y1: float, width: float) -> Polygon:
  """A straight bar from one point to another."""
  along = np.array([x1 - x0, y1 - y0])
  side = np.array([-along[1], along[0]]) * (width / 2 / np.hypot(*along))
  a, b = np.array([x0, y0]), np.array([x1, y1])
  return np.stack([a + side, b + side, b - side, a - side])


def corners(*points: tuple[float, float]) -> Polygon:
  """The polygon through the given points."""
  return np.array(points, dtype=np.float64)


def _vary(rng: np.random.Generator, value: float, spread: float = 0.15):
  return value * rng.uniform(1 - spread, 1 + spread)


class _Drawing(list[Shape]):
  """A list of shapes that hands out positions, for `inside`."""

  def add(self, part: str, *polygons: Polygon, inside: int | None = None):
    self.append(Shape(part=part, polygons=polygons, inside=inside))
    return len(self) - 1

  def wheel(self, x: float, y: float, radius: float, hub: float):
    wheel = self.add('wheel', disc(x, y, radius))
    self.add('hub', disc(x, y, hub), inside=wheel)


def _wagon(rng: np.random.Generator) -> list[Shape]:
  drawing = _Drawing()
  width, height = _vary(rng, 1.7), _vary(rng, 0.6)
  radius = _vary(rng, 0.3)
  x = width / 2
  drawing.add('handle', bar(x - 0.1, 0.15, x + 0.45, _vary(rng, -0.5), 0.16))
  drawing.add(
    'body', trapezoid(0, 0, width, width * rng.uniform(0.8, 1), height)
  )
  for side in (-1, 1):
    drawing.wheel(side * width * 0.3, height / 2 + 0.1, radius, radius * 0.42)
  return drawing


def _star(rng: np.random.Generator) -> list[Shape]:
  inner = rng.uniform(0.36, 0.5)
  angle = np.arange(10) * np.pi / 5 - np.pi / 2
  radius = np.where(np.arange(10) % 2, inner, 1.0) * rng.uniform(0.93, 1.07, 10)
  points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
  return [Shape(part='', polygons=(points,))]


def _fish(rng: np.random.Generator) -> list[Shape]:
  drawing = _Drawing()
  width, height = _vary(rng, 0.75, 0.1), _vary(rng, 0.46)
  back = -width + 0.2
  reach, spread = _vary(rng, 0.6), _vary(rng, 0.5)
  drawing.add(
    'tail',
    corners(
      (back, 0),
      (back - reach, -spread),
      (back - reach * 0.65, 0),
      (back - reach, spread),
    ),
  )
  top = -height * 0.8
  for side in (1, -1):
    drawing.add(
      'fin',
      corners(
        (width * 0.35, side * top),
        (-width * 0.3, side * (top - _vary(rng, 0.35))),
        (-width * 0.45, side * top),
      ),
    )
  body = drawing.add('body', disc(0, 0, width, height))
  drawing.add(
    'eye',
    disc(width * 0.58, -height * 0.25, _vary(rng, 0.13)),
    inside=body,
  )
  return drawing


def _kite(rng: np.random.Generator) -> list[Shape]:
  drawing = _Drawing()
  half, waist = _vary(rng, 0.72), rng.uniform(-0.5, -0.3)
  top, bottom = -1.15, _vary(rng, 0.45)
  knots = [(0.0, bottom)]
  for step in range(1, 4):
    knots.append(
      (0.22 * (-1) ** step * rng.uniform(0.6, 1.4), bottom + 0.24 * step)
    )
  links = zip(knots[:-1], knots[1:], strict=True)
  drawing.add('tail', *(bar(*a, *b, 0.1) for a, b in links))
  for x, y in knots[1:]:
    r, h = 0.26, 0.15
    drawing.add(
      'bow',
      corners((x - r, y - h), (x, y), (x - r, y + h)),
      corners((x + r, y - h), (x, y), (x + r, y + h)),
    )
  sail = drawing.add(
    'sail', corners((0, top), (half, waist), (0, bottom), (-half, waist))
  )
  drawing.add(
    'spar',
    bar(0, top + 0.1, 0, bottom - 0.15, 0.13),
    bar(-half + 0.12, waist, half - 0.12, waist, 0.13),
    inside=sail,
  )
  return drawing


def _robot(rng: np.random.Generator) -> list[Shape]:
  drawing = _Drawing()
  width, height = _vary(rng, 0.85), _vary(rng, 0.75, 0.1)
  skull, brow = _vary(rng, 0.62), _vary(rng, 0.5, 0.1)
  hip = height / 2
  for side in (-1, 1):
    x = side * width / 2
    hand = rng.uniform(-0.4, 0.3)
    drawing.add('arm', bar(x * 0.9, -hip + 0.12, x + side * 0.45, hand, 0.2))
    drawing.add('leg', bar(x * 0.55, hip - 0.1, x * 0.65, hip + 0.6, 0.24))
  torso = drawing.add('torso', box(0, 0, width, height))
  drawing.add('panel', box(0, 0.02, width * 0.5, height * 0.45), inside=torso)
  level = -hip - brow / 2 - 0.03
  head = drawing.add('head', box(0, level, skull, brow))
  for side in (-1, 1):
    drawing.add('eye', disc(side * skull * 0.23, level, 0.1), inside=head)
  return drawing


def _house(rng: np.random.Generator) -> list[Shape]:
  drawing = _Drawing()
  width, height = _vary(rng, 1.5), _vary(rng, 0.85)
  ridge = -height / 2 - _vary(rng, 0.65)
  x = rng.choice([-1, 1]) * width * 0.28
  drawing.add('chimney', box(x, ridge + 0.18, 0.24, 0.6))
  wall = drawing.add('wall', box(0, 0, width, height))
  eaves = width / 2 + 0.15
  drawing.add(
    'roof',
    corners(
      (-eaves, -height / 2 + 0.04),
      (rng.uniform(-0.15, 0.15), ridge),
      (eaves, -height / 2 + 0.04),
    ),
  )
  side = rng.choice([-1, 1])
  high = height * 0.62
  drawing.add(
    'door',
    box(side * width * 0.24, height / 2 - high / 2, 0.32, high),
    inside=wall,
  )
  drawing.add(
    'window', box(-side * width * 0.22, -0.02, 0.4, 0.34), inside=wall
  )
  return drawing


def _mushroom(rng: np.random.Generator) -> list[Shape]:
  drawing = _Drawing()
  width, height = _vary(rng, 0.95, 0.1), _vary(rng, 0.8)
  drawing.add(
    'stem', trapezoid(0, 0.4, _vary(rng, 0.45), _vary(rng, 0.6), 0.95)
  )
  cap = drawing.add('cap', disc(0, 0.1, width, height, 180, 360))
  for x, y in ((-0.5, -0.28), (0.02, -0.55), (0.5, -0.25), (0.03, -0.12)):
    if rng.random() < 0.85:
      drawing.add(
        'spot',
        disc(x * width, y * height + 0.1, _vary(rng, 0.15, 0.25)),
        inside=cap,
      )
  return drawing


def _boat(rng: np.random.Generator) -> list[Shape]:
  drawing = _Drawing()
  length, depth = _vary(rng, 1.8, 0.1), _vary(rng, 0.5)
  top = 0.3
  x, peak = rng.uniform(-0.2, 0.1), -_vary(rng, 1.15, 0.1)
  drawing.add('mast', bar(x, top + 0.05, x, peak, 0.13))
  reach = _vary(rng, 0.8)
  drawing.add(
    'sail', corners((x + 0.08, peak), (x + 0.08 + reach, 0.1), (x + 0.08, 0.1))
  )
  drawing.add(
    'sail',
    corners((x - 0.08, peak + 0.3), (x - reach * 0.7, 0.1), (x - 0.08, 0.1)),
  )
  hull = drawing.add(
    'hull',
    trapezoid(
      0, top + depth / 2, length, length * rng.uniform(0.55, 0.7), depth
    ),
  )
  for place in (-0.24, 0.0, 0.24):
    drawing.add(
      'porthole',
      disc(place * length, top + depth * 0.45, 0.11),
      inside=hull,
    )
  return drawing


def _snail(rng: np.random.Generator) -> list[Shape]:
  drawing = _Drawing()
  radius = _vary(rng, 0.62, 0.1)
  neck = _vary(rng, 0.78, 0.08)
  for lean in (-0.12, 0.22):
    drawing.add('feeler', bar(neck, -0.1, neck + lean, -0.62, 0.12))
  drawing.add(
    'body',
    corners(
      (-1.1, 0.6),
      (-0.7, 0.36),
      (neck - 0.4, 0.3),
      (neck - 0.2, -0.2),
      (neck + 0.1, -0.28),
      (neck + 0.28, -0.05),
      (neck + 0.15, 0.6),
    ),
  )
  x, y = rng.uniform(-0.3, -0.15), -0.1
  shell = drawing.add('shell', disc(x, y, radius, radius * 0.95))
  drawing.add(
    'whorl',
    disc(x + 0.05, y + 0.05, radius * rng.uniform(0.42, 0.55)),
    inside=shell,
  )
  return drawing


def _bicycle(rng: np.random.Generator) -> list[Shape]:
  drawing = _Drawing()
  radius, reach = _vary(rng, 0.46, 0.08), _vary(rng, 0.68, 0.08)
  for side in (-1, 1):
    drawing.wheel(side * reach, 0.3, radius, radius * 0.3)
  seat, grip, crank = (-0.25, -0.42), (0.45, -0.48), (-0.02, 0.28)
  links = (
    (seat, grip),
    (seat, crank),
    (grip, crank),
    ((-reach, 0.3), crank),
    ((-reach, 0.3), seat),
    ((reach, 0.3), grip),
  )
  drawing.add('frame', *(bar(*a, *b, 0.12) for a, b in links))
  drawing.add('saddle', trapezoid(seat[0], seat[1] - 0.12, 0.5, 0.3, 0.18))
  drawing.add(
    'handlebar',
    bar(*grip, grip[0] + 0.05, grip[1] - 0.22, 0.14),
    bar(grip[0] - 0.15, grip[1] - 0.25, grip[0] + 0.3, grip[1] - 0.25, 0.16),
  )
  return drawing


def _windmill(rng: np.random.Generator) -> list[Shape]:
  drawing = _Drawing()
  tower = drawing.add(
    'tower', trapezoid(0, 0.45, _vary(rng, 0.45), _vary(rng, 0.95), 1.3)
  )
  drawing.add('door', box(0, 0.97, 0.26, 0.36), inside=tower)
  turn, length = rng.uniform(25, 65), _vary(rng, 0.9, 0.08)
  for angle in np.radians(turn + np.arange(0, 360, 90)):
    x, y = np.cos(angle), np.sin(angle)
    drawing.add(
      'blade',
      bar(0.1 * x, 0.1 * y - 0.3, length * x, length * y - 0.3, 0.28),
    )
  drawing.add('hub', disc(0, -0.3, 0.17))
  return drawing


def _lamp(rng: np.random.Generator) -> list[Shape]:
  drawing = _Drawing()
  drawing.add('pole', bar(0, -0.6, 0, 0.9, _vary(rng, 0.17)))
  drawing.add('base', disc(0, 1.02, _vary(rng, 0.55), 0.28, 180, 360))
  top = _vary(rng, 0.6)
  drawing.add('shade', trapezoid(0, -0.6, top, _vary(rng, 1.35), 0.75))
  return drawing


# The first three already hold nesting, a whole-object class and shared parts:
# tests render only those.
KINDS = (
  Kind(
    name='wagon',
    parts=('body', 'wheel', 'hub', 'handle'),
    inside={'hub': 'wheel'},
    draw=_wagon,
  ),
  Kind(name='star', parts=('',), draw=_star),
  Kind(
    name='fish',
    parts=('body', 'tail', 'fin', 'eye'),
    inside={'eye': 'body'},
    draw=_fish,
  ),
  Kind(
    name='kite',
    parts=('spar', 'sail', 'tail', 'bow'),
    inside={'spar': 'sail'},
    draw=_kite,
  ),
  Kind(
    name='robot',
    parts=('head', 'eye', 'torso', 'panel', 'arm', 'leg'),
    inside={'eye': 'head', 'panel': 'torso'},
    draw=_robot,
  ),
  Kind(
    name='house',
    parts=('roof', 'wall', 'door', 'window', 'chimney'),
    inside={'door': 'wall', 'window': 'wall'},
    draw=_house,
  ),
  Kind(
    name='mushroom',
    parts=('cap', 'spot', 'stem'),
    inside={'spot': 'cap'},
    draw=_mushroom,
  ),
  Kind(
    name='sailing boat',
    parts=('hull', 'porthole', 'mast', 'sail'),
    inside={'porthole': 'hull'},
    draw=_boat,
  ),
  Kind(
    name='snail',
    parts=('whorl', 'shell', 'body', 'feeler'),
    inside={'whorl': 'shell'},
    draw=_snail,
  ),
  Kind(
    name='bicycle',
    parts=('wheel', 'hub', 'frame', 'saddle', 'handlebar'),
    inside={'hub': 'wheel'},
    draw=_bicycle,
  ),
  Kind(
    name='windmill',
    parts=('tower', 'door', 'blade', 'hub'),
    inside={'door': 'tower'},
    draw=_windmill,
  ),
  Kind(name='lamp', parts=('shade', 'pole', 'base'), draw=_lamp),
)
