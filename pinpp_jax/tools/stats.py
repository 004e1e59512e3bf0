"""Counts and sizes of a part data set, as tables and drawings.

pinpp stats pinpp_mini --html=stats.html
pinpp stats RELEASE --csv=FOLDER --png=FOLDER
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import pathlib
import sys
from typing import Any

import numpy as np
import tqdm

from pinpp_jax.data import files
from pinpp_jax.data.build import check_release
from pinpp_jax.data.read import statistics
from pinpp_jax.data.read.statistics import Statistics
from pinpp_jax.errors import UserError
from pinpp_jax.machine import data_folder
from pinpp_jax.report import distributions, template
from pinpp_jax.tools import columns, terminal

_CLASSES = 40  # So many are listed on the terminal.
_HEADLINES = ('classes', 'images', 'parts', 'masks')


def parser() -> argparse.ArgumentParser:
  """Returns the command line of this tool."""
  result = argparse.ArgumentParser(
    prog='pinpp stats',
    description='Counts the classes, parts and masks of a data set.',
  )
  add = result.add_argument
  add('source', help='a release folder, or a built data set (name or folder)')
  add('--data_dir', default='', help=data_folder.HELP)
  add('--json', metavar='FILE', help='write all numbers for machines')
  add(
    '--csv',
    metavar='FOLDER',
    help='write totals.csv, classes.csv and parts.csv',
  )
  add('--html', metavar='FILE', help='write a page with tables and drawings')
  add('--png', metavar='FOLDER', help='write the drawings, each as a PNG')
  return result


def published(found: Statistics) -> Mapping[str, int]:
  """Returns the published totals if a data set is to be compared with them."""
  full = found.table.num_classes == check_release.PUBLISHED['classes']
  return check_release.PUBLISHED if full else {}


def totals(found: Statistics) -> list[tuple[str, str, str]]:
  """Returns (what, value, the published value or '')."""
  given = published(found)
  return [
    (name, _shown(name, value), f'{given[name]:,}' if name in given else '')
    for name, value in found.totals().items()
  ]


def _shown(name: str, value: float) -> str:
  if isinstance(value, int):
    return f'{value:,}'
  share = name.startswith(('share', 'median'))
  return f'{100 * value:.2f} %' if share else f'{value:.2f}'


def as_text(found: Statistics) -> str:
  """Returns the numbers for the terminal."""
  rows = totals(found)
  wide = max(len(name) for name, _, _ in rows)
  lines = [
    f'{name:{wide}}  {value:>10}' + (f'   published: {other}' if other else '')
    for name, value, other in rows
  ]
  counts = np.bincount(found.table.part_counts)
  spread = [
    {'parts': n, 'classes': int(count)}
    for n, count in enumerate(counts)
    if count
  ]
  lines += ['', 'parts per class', columns.aligned(spread)]
  classes = [_class_line(row) for row in found.class_rows()]
  if len(classes) <= _CLASSES:
    lines += ['', columns.aligned(classes)]
  else:
    classes.sort(key=lambda row: -row['masks'])
    lines += ['', 'most masks', columns.aligned(classes[:5])]
    lines += ['', 'fewest masks', columns.aligned(classes[-5:])]
  return '\n'.join(lines)


def _class_line(row: statistics.ClassRow) -> dict[str, Any]:
  return {
    'wnid': row.wnid,
    'object': row.object_name,
    'parts': row.parts,
    'images': row.images,
    'masks': row.masks,
    'per image': f'{row.masks_per_image:9.2f}',
    'median area': f'{100 * row.median_area:9.2f} %',
  }


def as_dict(source: str, found: Statistics) -> dict[str, Any]:
  """Returns all numbers for machines."""
  given = published(found)
  return {
    'source': source,
    'label_hash': found.table.hash,
    'totals': {k: _plain(v) for k, v in found.totals().items()},
    'published': dict(given),
    'parts_per_class': _histogram(found.table.part_counts),
    'masks_per_image': _histogram(found.masks_per_image),
    'visible_parts_per_image': _histogram(found.parts_per_image),
    'mask_area_percentiles': {
      str(p): float(np.percentile(found.areas, p)) if len(found.areas) else 0.0
      for p in (0, 5, 25, 50, 75, 95, 100)
    },
    'classes': [dataclasses.asdict(row) for row in found.class_rows()],
    'parts': [dataclasses.asdict(row) for row in found.part_rows()],
  }


def _plain(value: Any) -> int | float:
  return value if isinstance(value, int) else float(value)


def _histogram(numbers: np.ndarray) -> dict[str, int]:
  """Returns how often each number occurs."""
  values, counts = np.unique(numbers, return_counts=True)
  return {str(v): int(n) for v, n in zip(values, counts, strict=True)}


def write_csv(found: Statistics, folder: pathlib.Path) -> list[pathlib.Path]:
  """Writes three tables and returns their paths."""
  folder.mkdir(parents=True, exist_ok=True)
  tables = {
    'totals': [
      {'what': name, 'value': _plain(value)}
      for name, value in found.totals().items()
    ],
    'classes': [dataclasses.asdict(row) for row in found.class_rows()],
    'parts': [dataclasses.asdict(row) for row in found.part_rows()],
  }
  return [
    files.write(folder / f'{name}.csv', columns.as_csv(rows))
    for name, rows in tables.items()
  ]


def write_page(
  source: str,
  found: Statistics,
  drawings: Sequence[distributions.Drawing],
  path: str | pathlib.Path,
) -> pathlib.Path:
  """Writes everything as one page and returns its path."""
  rows = totals(found)
  classes = found.class_rows()
  return template.write(
    path,
    'stats.html.j2',
    title=_title(source),
    folder=source,
    headlines=[
      (name.capitalize(), value, other)
      for name, value, other in rows
      if name in _HEADLINES
    ],
    totals=[row for row in rows if row[0] not in _HEADLINES],
    compared=bool(published(found)),
    drawings=drawings,
    classes=classes,
    images_of={row.wnid: row.images for row in classes},
    parts=found.part_rows(),
  )


def _title(source: str) -> str:
  """Returns a data set's name, also where its version's folder was given."""
  path = pathlib.Path(source).expanduser().resolve()
  return path.parent.name if path.name[:1].isdigit() else path.name


def _bar(steps: Sequence[Any]) -> Iterable[Any]:
  return tqdm.tqdm(steps, desc='Counting', disable=None)


def main(arguments: Sequence[str] | None = None) -> int:
  """Prints the numbers and writes what is asked for; returns 0 or 2."""
  options = parser().parse_args(arguments)
  try:
    found = statistics.load(options.source, options.data_dir, _bar)
    terminal.show(as_text(found))
    drawings = []
    if options.html or options.png:
      drawings = distributions.draw(found)
    written: list[pathlib.Path] = []
    if options.json:
      path = pathlib.Path(options.json)
      files.write_json(path, as_dict(options.source, found))
      written.append(path)
    if options.csv:
      written += write_csv(found, pathlib.Path(options.csv))
    if options.html:
      page = write_page(options.source, found, drawings, options.html)
      written.append(page)
    if options.png:
      folder = pathlib.Path(options.png)
      folder.mkdir(parents=True, exist_ok=True)
      written += [
        files.write(folder / f'{d.name}.png', d.png) for d in drawings
      ]
    for path in written:
      terminal.show(f'wrote {path}')
  except (UserError, OSError) as error:
    print(f'pinpp stats: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('pinpp stats: stopped', file=sys.stderr)
    return 130
  return 0


if __name__ == '__main__':
  sys.exit(main())
