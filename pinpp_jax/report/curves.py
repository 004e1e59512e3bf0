"""Curves over the steps of a run, as SVG."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from pinpp_jax.report import drawing

_SEGMENTATION = (
  'part_miou_known',
  'part_miou_open',
  'object_miou',
  'pixel_accuracy',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
  """One drawing of a metric, or of several that belong together."""

  title: str
  source: str  # A data URI.


def draw(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
  """Returns a drawing for each group of metrics in metrics.jsonl's rows."""
  names = dict.fromkeys(name for row in rows for name in row)
  groups: dict[str, list[str]] = {}
  for name in names:
    title = _title(name)
    if title:
      groups.setdefault(title, []).append(name)
  order = sorted(groups, key=lambda title: (_ORDER.get(title, 99), title))
  return [
    Curve(title=title, source=_svg(title, groups[title], rows))
    for title in order
  ]


_ORDER = {
  'Training loss': 0,
  'Accuracy': 1,
  'Parts and objects': 2,
  'Evaluation loss': 3,
  'Learning rate': 4,
  'Images per second': 10,
  'Seconds of a step': 11,
  'Waiting for data': 12,
  'Device memory, GiB': 13,
}
_PERF = {
  'images_per_second': 'Images per second',
  'step_seconds_p50': 'Seconds of a step',
  'step_seconds_p90': 'Seconds of a step',
  'step_seconds_p99': 'Seconds of a step',
  'data_wait': 'Waiting for data',
  'device_memory_gib': 'Device memory, GiB',
}


def _title(name: str) -> str:
  """Returns the title of the drawing that a metric belongs to, '' for none."""
  split, _, score = name.rpartition('/')
  if split == 'perf':
    return _PERF.get(score, '')
  if not split:
    return 'Learning rate' if score == 'learning_rate' else ''
  if score == 'learning_rate':
    return 'Learning rate'
  if split == 'train':
    loss = score == 'loss' or score.endswith('_loss')
    # The loss of one scale of the parts would crowd the drawing.
    if not loss and '_loss' in score:
      return ''
    return 'Training loss' if loss else score.replace('_', ' ').capitalize()
  if score.endswith(_SEGMENTATION):
    return 'Parts and objects'
  if score.endswith('accuracy'):
    return 'Accuracy'
  return 'Evaluation loss' if score.endswith('loss') else ''


def _svg(
  title: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> str:
  splits = {name.rpartition('/')[0] for name in names}
  shared = f'{splits.pop()}/' if len(splits) == 1 else None
  with matplotlib.rc_context(drawing.STYLE):
    figure = Figure(figsize=(4.3, 2.7), layout='constrained')
    axes = figure.subplots()
    for i, name in enumerate(names):
      points = [(row['step'], row[name]) for row in rows if name in row]
      axes.plot(
        *zip(*points, strict=True),
        color=drawing.COLOURS[i % len(drawing.COLOURS)],
        linestyle=('-', '--', ':')[i // len(drawing.COLOURS) % 3],
        marker='o' if len(points) < 25 else None,
        markersize=3,
        linewidth=1.6,
        label=name if shared is None else name.removeprefix(shared),
      )
    axes.set_xlabel('step')
    axes.margins(x=0.02)
    if title in ('Accuracy', 'Parts and objects', 'Waiting for data'):
      axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=' %'))
      axes.set_ylim(0, None)
    if len(names) > 1:
      axes.legend(frameon=False, fontsize=8)
    return drawing.svg(figure)
