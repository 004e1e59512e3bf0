"""Pictures of the findings in a release."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pinpp_jax.data import text, views
from pinpp_jax.data.imagenet.layouts import ImageNetCopy
from pinpp_jax.data.release import coco_masks, painting
from pinpp_jax.data.release.findings import Finding, Findings
from pinpp_jax.data.release.reader import Release
from pinpp_jax.data.release.records import ClassRecord, ImageRecord
from pinpp_jax.errors import UserError
from pinpp_jax.report import pictures

SIDE = 360  # Pixels of a picture's longer side.
_RED, _WHITE, _YELLOW = '#e8202a', '#ffffff', '#ffd400'
_LEAST = 0.3  # Smallest section shown, as a share of the image's longer side.

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scene:
  """An image's pixels (grey if it cannot be read) and its raw entries."""

  base: Image.Image
  size: tuple[int, int]  # As the class file says.
  entries: Sequence[dict[str, Any]]
  record: ImageRecord | None


class Evidence:
  """Draws findings of one release.

  Annotations of the finding are filled red, their boxes dashed in yellow, other
  annotations of the image outlined in white; pixels that unrelated parts share
  are pink.
  """

  def __init__(self, release: Release, copy: ImageNetCopy | None):
    self._release = Release(release.folder, Findings(collect=True))
    self._copy = copy
    self._classes: dict[str, tuple[dict[str, Any], ClassRecord | None]] = {}

  def picture(self, finding: Finding) -> str:
    """Returns a finding's picture as a data URI, '' if it has none."""
    place = finding.place
    if not place.image:
      return ''
    scene = self._scene(place.wnid, place.image)
    if scene is None:
      return ''
    chosen = _in_question(finding, scene)
    shared = None
    if finding.kind.startswith('pixels shared'):
      record = self._class(place.wnid)[1]
      if scene.record and record:
        shared = painting.shared(scene.record, record)
    return pictures.jpeg(np.asarray(_draw(scene, chosen, shared)))

  def _class(self, wnid: str) -> tuple[dict[str, Any], ClassRecord | None]:
    """Returns a class's raw file, and its record; ({}, None) if unreadable."""
    if wnid not in self._classes:
      try:
        data = text.read_json(self._release.folder / 'json' / f'{wnid}.json')
        self._classes = {wnid: (data, self._release.load(wnid))}
      except UserError:
        self._classes = {wnid: ({}, None)}
    return self._classes[wnid]

  def _scene(self, wnid: str, file_name: str) -> _Scene | None:
    data, record = self._class(wnid)
    if record is None:
      return None
    heads = [h for h in data['images'] if h.get('file_name') == file_name]
    found = [i for i in record.images if i.file_name == file_name]
    if not heads:
      return None
    size = (found[0].width, found[0].height) if found else (64, 64)
    numbers = {str(head.get('id')) for head in heads}
    entries = [
      entry
      for entry in data['annotations']
      if str(entry.get('image_id')) in numbers
    ]
    return _Scene(
      base=self._pixels(file_name, size),
      size=size,
      entries=entries,
      record=found[0] if found else None,
    )

  def _pixels(self, name: str, size: tuple[int, int]) -> Image.Image:
    try:
      if self._copy is None:
        raise UserError('no copy')
      return views.decode(self._copy.read(name, 'train'), name)
    except UserError:
      return Image.new('RGB', size, '#c9ced4')


def _in_question(finding: Finding, scene: _Scene) -> list[dict[str, Any]]:
  """Returns the annotations that a finding is about."""
  place = finding.place
  if place.annotation is not None:
    number = str(place.annotation)
    return [e for e in scene.entries if str(e.get('id')).strip() == number]
  if place.part is not None and scene.record:
    return [a.entry for a in scene.record.annotations if a.part == place.part]
  return []


def _draw(
  scene: _Scene, chosen: Sequence[dict[str, Any]], shared: np.ndarray | None
) -> Image.Image:
  """Returns the section of an image that shows a finding."""
  box = _view(scene, chosen, shared)
  scale = SIDE / max(box[2] - box[0], box[3] - box[1])
  target = (
    max(1, round(scale * (box[2] - box[0]))),
    max(1, round(scale * (box[3] - box[1]))),
  )
  base = scene.base
  if shared is not None:
    pixels = np.asarray(base).copy()
    height, width = (
      min(*s) for s in zip(shared.shape, pixels.shape[:2], strict=True)
    )
    here = shared[:height, :width]
    pink = np.array((255, 47, 208), np.float32)
    part = pixels[:height, :width]
    part[here] = (0.3 * part[here] + 0.7 * pink).astype(np.uint8)
    base = Image.fromarray(pixels)
  left, top = math.floor(box[0]), math.floor(box[1])
  right, bottom = math.ceil(box[2]), math.ceil(box[3])
  canvas = Image.new('RGB', (right - left, bottom - top), '#eef0f3')
  canvas.paste(base, (-left, -top))
  # Drawn at twice the size, then reduced: smooth lines.
  canvas = canvas.resize(
    (2 * target[0], 2 * target[1]), Image.Resampling.BICUBIC
  )
  layer = Image.new('RGBA', canvas.size, (0, 0, 0, 0))
  pen = ImageDraw.Draw(layer)
  move = lambda x, y: (2 * scale * (x - left), 2 * scale * (y - top))
  _frame(pen, move, scene)
  identities = {id(entry) for entry in chosen}
  for entry in scene.entries:
    if id(entry) not in identities:
      for ring in _rings(entry, scene.size):
        points = [move(*point) for point in ring]
        # The dark rim is visible on a light background.
        _outline(pen, points, '#00000080', 6)
        _outline(pen, points, _WHITE, 3)
  for entry in chosen:
    for ring in _rings(entry, scene.size):
      points = [move(*point) for point in ring]
      if len(points) > 2:
        pen.polygon(points, fill=(232, 32, 42, 90))
      _outline(pen, points, _RED, 5)
    _bbox(pen, move, entry)
  canvas.paste(layer, mask=layer.getchannel('A'))
  return canvas.resize(target, Image.Resampling.LANCZOS)


def _frame(pen: ImageDraw.ImageDraw, move: Any, scene: _Scene) -> None:
  """Draws the image size of the class file if the image has another one."""
  if scene.size != scene.base.size:
    width, height = scene.size
    _dashes(pen, move, (0, 0, width, height), _YELLOW)


def _view(
  scene: _Scene, chosen: Sequence[dict[str, Any]], shared: np.ndarray | None
) -> Box:
  """Returns the rectangle to show: the finding with its surroundings."""
  width = max(scene.size[0], scene.base.width)
  height = max(scene.size[1], scene.base.height)
  points = [p for entry in chosen for r in _rings(entry, scene.size) for p in r]
  for entry in chosen:
    corners = _box_of(entry)
    if corners:
      points += [corners[:2], corners[2:]]
  if shared is not None and shared.any():
    rows, columns = np.nonzero(shared)
    points += [
      (float(columns.min()), float(rows.min())),
      (float(columns.max()), float(rows.max())),
    ]
  if not points:
    return 0, 0, width, height
  # An outline far outside the image is drawn at the edge of the picture.
  reach = lambda x, side: min(max(x, -0.5 * side), 1.5 * side)
  xs = [reach(x, width) for x, _ in points]
  ys = [reach(y, height) for _, y in points]
  least = _LEAST * max(width, height)
  low_x, high_x = _widened(min(xs), max(xs), least, width)
  low_y, high_y = _widened(min(ys), max(ys), least, height)
  return low_x, low_y, high_x, high_y


def _widened(
  low: float, high: float, least: float, side: int
) -> tuple[float, float]:
  """Returns a wider range, clipped to the image unless it was outside."""
  margin = max(0.25 * (high - low), (least - (high - low)) / 2, 4.0)
  wide = low - margin, high + margin
  return (
    max(wide[0], min(0.0, low - 4)),
    min(wide[1], max(float(side), high + 4)),
  )


def _rings(
  entry: dict[str, Any], size: tuple[int, int]
) -> list[list[tuple[float, float]]]:
  """Returns an entry's outlines, as far as they can be drawn."""
  stored = entry.get('segmentation')
  if isinstance(stored, dict):
    return _rle_box(stored, size)
  if not isinstance(stored, list):
    return []
  nested = any(isinstance(ring, list) for ring in stored)
  rings = []
  for ring in stored if nested else [stored]:
    numbers = [
      float(value)
      for value in (ring if isinstance(ring, list) else [])
      if isinstance(value, (int, float)) and abs(value) < 1e6
    ]
    pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
    if pairs:
      rings.append(pairs)
  return rings


def _rle_box(
  stored: dict[str, Any], size: tuple[int, int]
) -> list[list[tuple[float, float]]]:
  """Returns the corners of the bounding box of a run-length mask."""
  ignore = lambda *_: None
  _, rle = coco_masks.read(
    stored, height=size[1], width=size[0], note=ignore, bad=ignore
  )
  pixels = None if rle is None else painting.decode_rle(rle)
  if pixels is None or not pixels.any():
    return []
  rows, columns = np.nonzero(pixels)
  left, right = float(columns.min()), float(columns.max() + 1)
  top, bottom = float(rows.min()), float(rows.max() + 1)
  return [[(left, top), (right, top), (right, bottom), (left, bottom)]]


def _box_of(entry: dict[str, Any]) -> Box | None:
  """Returns the corners of an entry's bbox, None if it has none."""
  try:
    x, y, width, height = (float(value) for value in entry['bbox'])
  except (KeyError, TypeError, ValueError):
    return None
  corners = (x, y, x + width, y + height)
  return corners if all(abs(c) < 1e6 for c in corners) else None


def _bbox(pen: ImageDraw.ImageDraw, move: Any, entry: dict[str, Any]) -> None:
  corners = _box_of(entry)
  if corners:
    _dashes(pen, move, corners, _YELLOW)


def _outline(
  pen: ImageDraw.ImageDraw,
  points: list[tuple[float, float]],
  colour: str,
  width: int,
) -> None:
  if len(points) == 1:
    x, y = points[0]
    pen.ellipse((x - 8, y - 8, x + 8, y + 8), outline=colour, width=width)
  else:
    pen.line([*points, points[0]], fill=colour, width=width, joint='curve')


def _dashes(
  pen: ImageDraw.ImageDraw, move: Any, corners: Box, colour: str
) -> None:
  left, top, right, bottom = corners
  (x0, y0), (x1, y1) = move(left, top), move(right, bottom)
  ring = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
  for (ax, ay), (bx, by) in zip(ring, ring[1:], strict=False):
    length = math.hypot(bx - ax, by - ay)
    steps = max(1, min(int(length // 12), 400))
    for i in range(0, steps, 2):
      a, b = i / steps, (i + 1) / steps
      ends = [
        (ax + a * (bx - ax), ay + a * (by - ay)),
        (ax + b * (bx - ax), ay + b * (by - ay)),
      ]
      pen.line(ends, fill=colour, width=4)
