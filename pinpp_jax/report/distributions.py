"""Drawings of a data set's statistics."""

from collections.abc import Callable, Sequence
import dataclasses
import io

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np

from pinpp_jax.data.read.statistics import Statistics
from pinpp_jax.data.release import concepts
from pinpp_jax.report import drawing

_BLUE, _SOFT = drawing.COLOURS[0], '#47515c'
_NAMED = 25  # Most bars that are drawn with names.
_COLUMNS = 45  # Most columns in a wide drawing.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
  """One drawing: its file's name, what it shows, and as SVG and PNG."""

  name: str
  title: str
  source: str  # A data URI.
  png: bytes
  wide: bool  # Whether it takes a whole row of the page.


def draw(found: Statistics) -> list[Drawing]:
  """Returns the drawings of a data set that has images."""
  rows = found.class_rows()
  by_masks = sorted(rows, key=lambda row: -row.masks)
  kinds: list[tuple[str, str, Callable[[Axes], None]]] = [
    (
      'parts_per_class',
      'Parts per class',
      lambda axes: _counts(axes, found.table.part_counts, 'parts', 'classes'),
    ),
    (
      'masks_per_image',
      'Masks per image',
      lambda axes: _counts(axes, found.masks_per_image, 'masks', 'images'),
    ),
    (
      'visible_parts_per_image',
      'Visible parts per image',
      lambda axes: _counts(axes, found.parts_per_image, 'parts', 'images'),
    ),
    ('mask_areas', 'Area of a mask', lambda axes: _areas(axes, found.areas)),
    (
      'masks_per_class',
      'Masks per class',
      lambda axes: _ranked(
        axes,
        [row.object_name or row.wnid for row in by_masks],
        [row.masks for row in by_masks],
        'classes',
      ),
    ),
    (
      'masks_per_part',
      'Masks per part, the most frequent first',
      lambda axes: _tail(axes, [part.count for part in found.table.parts]),
    ),
  ]
  common = sorted(concepts.of_table(found.table), key=lambda c: -c.masks)
  if common:
    kinds.append(
      (
        'concepts',
        'Masks per class-free part name',
        lambda axes: _columns(
          axes,
          [one.name for one in common[:_COLUMNS]],
          [one.masks for one in common[:_COLUMNS]],
        ),
      )
    )
  return [_drawing(*kind) for kind in kinds]


def _drawing(name: str, title: str, fill: Callable[[Axes], None]) -> Drawing:
  wide = name == 'concepts'
  with matplotlib.rc_context(drawing.STYLE):
    figure = Figure(figsize=(13.4 if wide else 4.3, 3.1), layout='constrained')
    axes = figure.subplots()
    axes.set_axisbelow(True)
    fill(axes)
    source = drawing.svg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=200, metadata={'Software': None})
  return Drawing(
    name=name, title=title, source=source, png=buffer.getvalue(), wide=wide
  )


def _counts(axes: Axes, numbers: np.ndarray, what: str, of: str) -> None:
  """Draws a histogram of whole numbers."""
  most = int(numbers.max(initial=0))
  # At most about 40 bars.
  width = max(1, most // 40)
  edges = np.arange(0, most + width + 1, width) - 0.5
  heights, _ = np.histogram(numbers, edges)
  centres = edges[:-1] + width / 2
  axes.bar(centres, heights, 0.86 * width, color=_BLUE)
  axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
  axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
  mean = float(numbers.mean()) if len(numbers) else 0.0
  _mark(axes, mean, f' mean {mean:.2f}')
  axes.grid(axis='x', visible=False)
  axes.set_xlabel(what)
  axes.set_ylabel(of)


def _areas(axes: Axes, areas: np.ndarray) -> None:
  """Draws the shares of the image that masks cover, on a log scale."""
  some = areas[areas > 0]
  low = float(some.min()) if len(some) else 1e-4
  edges = np.geomspace(min(low, 0.5), 1, 41)
  axes.hist(some, edges.tolist(), color=_BLUE)
  axes.set_xscale('log')
  axes.xaxis.set_major_formatter(lambda share, _: f'{100 * share:g} %')
  if len(some):
    median = float(np.median(some))
    _mark(axes, median, f' median {100 * median:.2f} %')
  axes.set_xlabel('share of the image')
  axes.set_ylabel('masks')


def _mark(axes: Axes, value: float, words: str) -> None:
  """Draws a vertical line at a value, with words above it."""
  axes.axvline(value, color=drawing.COLOURS[1], linewidth=1.3)
  axes.annotate(
    words,
    (value, 1),
    xycoords=('data', 'axes fraction'),
    va='bottom',
    color=drawing.COLOURS[1],
    fontsize=8,
  )


def _ranked(
  axes: Axes, names: Sequence[str], values: Sequence[int], what: str
) -> None:
  """Draws values in decreasing order: named bars, or a curve of many."""
  if len(names) <= _NAMED:
    _bars(axes, names, values)
    return
  axes.fill_between(range(1, len(values) + 1), values, color=_BLUE, alpha=0.85)
  axes.set_xlabel(f'{what}, by rank')
  axes.set_ylabel('masks')
  axes.set_ylim(0, None)
  axes.margins(x=0.01)


def _tail(axes: Axes, counts: Sequence[int]) -> None:
  values = sorted(counts, reverse=True)
  axes.step(range(1, len(values) + 1), values, color=_BLUE, where='mid')
  if values and values[-1] > 0:
    axes.set_yscale('log')
  else:
    axes.set_yscale('symlog', linthresh=1)
  axes.set_xlabel('parts, by rank')
  axes.set_ylabel('masks')
  axes.margins(x=0.02)


def _bars(axes: Axes, names: Sequence[str], values: Sequence[int]) -> None:
  short = [n if len(n) <= 26 else f'{n[:25]}…' for n in names]
  places = range(len(names))
  axes.barh(places, values, color=_BLUE)
  axes.set_yticks(places, short, fontsize=8 if len(names) <= 14 else 6.5)
  axes.invert_yaxis()
  axes.grid(axis='y', visible=False)
  axes.set_xlabel('masks')


def _columns(axes: Axes, names: Sequence[str], values: Sequence[int]) -> None:
  short = [n if len(n) <= 20 else f'{n[:19]}…' for n in names]
  places = range(len(names))
  axes.bar(places, values, color=_BLUE)
  axes.set_xticks(places, short, rotation=45, ha='right', fontsize=8)
  axes.grid(axis='x', visible=False)
  axes.set_ylabel('masks')
  axes.margins(x=0.01)
