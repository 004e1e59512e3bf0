"""Polygons of a binary mask, such that filling them gives the mask back."""

import numpy as np

Corner = tuple[int, int]


def polygons(mask: np.ndarray) -> list[list[float]]:
  """Outlines of a mask in COCO's flat form, [x0, y0, x1, y1, ...].

  The outlines run along pixel edges, so pycocotools fills them to exactly the
  same mask. Pixels that touch at a corner share an outline; a hole is joined to
  its outline by a slit of no width, as COCO has no other way to say it.

  Args:
    mask: bool (H, W).

  Returns:
    One outline per 8-connected region; none for an empty mask.
  """
  outlines, holes = loops(np.asarray(mask, dtype=bool))
  # A slit runs left from a hole's leftmost edge: what it meets is an outline
  # or a hole further left, which has been joined already.
  for hole in sorted(holes, key=min):
    _join(outlines, hole, mask)
  return [_flat(outline) for outline in outlines]


def loops(mask: np.ndarray) -> tuple[list[list[Corner]], list[list[Corner]]]:
  """Closed walks along the mask's edge in unit steps: outlines and holes.

  The mask lies to the right of every step (y points down), so outlines run
  clockwise on the screen and holes the other way.
  """
  steps = _steps(mask)
  outlines, holes = [], []
  while steps:
    start = next(iter(steps))
    heading = steps[start][0]
    corner, walk, area = start, [], 0
    while True:
      options = steps[corner]
      # Where two pixels meet at a corner a left turn keeps them together.
      left = (heading[1], -heading[0])
      heading = left if left in options else options[0]
      options.remove(heading)
      if not options:
        del steps[corner]
      walk.append(corner)
      area += corner[0] * heading[1] - corner[1] * heading[0]
      corner = (corner[0] + heading[0], corner[1] + heading[1])
      if corner == start and _closed(steps, start, heading):
        break
    (outlines if area > 0 else holes).append(walk)
  return outlines, holes


def _closed(
  steps: dict[Corner, list[Corner]], start: Corner, heading: Corner
) -> bool:
  """Whether a walk back at its start ends there (no left turn is open)."""
  return (heading[1], -heading[0]) not in steps.get(start, ())


def _steps(mask: np.ndarray) -> dict[Corner, list[Corner]]:
  """From each corner on the mask's edge, the unit steps that leave it."""
  padded = np.pad(mask, 1)
  inner = padded[1:-1, 1:-1]
  steps: dict[Corner, list[Corner]] = {}
  sides = (
    (padded[:-2, 1:-1], (0, 0), (1, 0)),  # above
    (padded[1:-1, 2:], (1, 0), (0, 1)),  # right
    (padded[2:, 1:-1], (1, 1), (-1, 0)),  # below
    (padded[1:-1, :-2], (0, 1), (0, -1)),  # left
  )
  for neighbour, (dx, dy), step in sides:
    rows, columns = np.nonzero(inner & ~neighbour)
    for x, y in zip(columns.tolist(), rows.tolist(), strict=True):
      steps.setdefault((x + dx, y + dy), []).append(step)
  return steps


def _join(
  outlines: list[list[Corner]], hole: list[Corner], mask: np.ndarray
) -> None:
  """Splices a hole into the outline to its left, in place."""
  x, y = min(hole)
  left = x
  while left > 0 and mask[y, left - 1]:
    left -= 1
  for outline in outlines:
    for at, corner in enumerate(outline):
      # The edge just left of the run of pixels is walked upwards.
      if corner == (left, y) and outline[at - 1] == (left, y + 1):
        first = hole.index((x, y))
        loop = hole[first:] + hole[:first] + [(x, y), (left, y)]
        outline[at + 1 : at + 1] = loop
        return
  raise AssertionError('a hole lies in no outline')


def _flat(walk: list[Corner]) -> list[float]:
  """The corners at which a walk turns, as one list of x and y."""
  flat = []
  for before, here, after in zip(
    walk[-1:] + walk[:-1], walk, walk[1:] + walk[:1], strict=True
  ):
    # Joined walks hold long steps, so compare directions, not differences.
    if _direction(before, here) != _direction(here, after):
      flat.extend((float(here[0]), float(here[1])))
  return flat


def _direction(a: Corner, b: Corner) -> Corner:
  x, y = b[0] - a[0], b[1] - a[1]
  return (x > 0) - (x < 0), (y > 0) - (y < 0)
