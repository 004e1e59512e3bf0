"""Tables for the terminal and as CSV."""

from collections.abc import Mapping, Sequence
import csv
import io
from typing import Any


def aligned(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns rows as aligned text under their names; numbers to the right.

  True is shown as 'yes', False as nothing, a list by its items.
  """
  if not rows:
    return ''
  names = list(rows[0])
  right = {name for name in names if _is_number(rows[0][name])}
  lines = [names, *([_shown(row[name]) for name in names] for row in rows)]
  widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
  result = []
  for line in lines:
    cells = [
      cell.rjust(width) if name in right else cell.ljust(width)
      for name, cell, width in zip(names, line, widths, strict=True)
    ]
    result.append('  '.join(cells).rstrip())
  return '\n'.join(result)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns rows as CSV with their names above; a list's items by '; '."""
  stream = io.StringIO()
  writer = csv.writer(stream, lineterminator='\n')
  if rows:
    writer.writerow(rows[0])
  for row in rows:
    writer.writerow([_cell(value) for value in row.values()])
  return stream.getvalue()


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
  if isinstance(value, bool):
    return 'yes' if value else ''
  if isinstance(value, (list, tuple)):
    return ', '.join(map(str, value))
  return f'{value:.3g}' if isinstance(value, float) else str(value)


def _cell(value: Any) -> Any:
  if isinstance(value, bool):
    return int(value)
  return (
    '; '.join(map(str, value)) if isinstance(value, list | tuple) else value
  )
