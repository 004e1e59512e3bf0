"""Measures of the distance between our numbers and recorded ones."""

from collections.abc import Mapping
import dataclasses
import re

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measure:
  """How a quantity is compared, and how far off it may be.

  Attributes:
    kind: 'largest': largest difference over the largest recorded magnitude;
      'rows': the same for every row, the worst counts; 'each': every entry
      relative to itself; 'absolute'; 'exact':
      number of entries that differ;
      'pixels': share of entries that are off by more than 1e-4, for what sign
      steps amplify (but none may be off by more than `limit`).
    single: Tolerance where both sides are float32.
    mixed: Tolerance where one side is float32 and the other float64; None for
      the same.
    double: Tolerance where both are float64.
    floor: 'each' and 'rows' divide by no less than this.
    noise: In 'each' and 'rows', what is below this share of the largest is
      rounding around 0, and is taken relative to the largest.
    limit: See 'pixels'.
  """

  kind: str
  single: float = 0
  mixed: float | None = None
  double: float = 0
  floor: float = 1e-30
  noise: float = 1e-6
  limit: float = np.inf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
  """One comparison: passed if the error is within the tolerance."""

  name: str
  error: float
  tolerance: float
  note: str = ''

  @property
  def passed(self) -> bool:
    """Whether the error is a number and within the tolerance."""
    return bool(self.error <= self.tolerance)

  def __str__(self) -> str:
    verdict = 'ok  ' if self.passed else 'FAIL'
    note = f'  ({self.note})' if self.note else ''
    return (
      f'{verdict} {self.name}  error {self.error:.2g}'
      f'  tolerance {self.tolerance:.2g}{note}'
    )


def failure(name: str, note: str) -> Line:
  """Returns a line for what could not be compared."""
  return Line(name=name, error=np.inf, tolerance=0.0, note=note)


def error(measure: Measure, mine: np.ndarray, theirs: np.ndarray) -> float:
  """Returns the distance by the given measure; infinite for other shapes.

  NaN marks what does not exist and must do so on both sides.
  """
  if mine.shape != theirs.shape:
    return np.inf
  if measure.kind == 'exact':
    return float(np.sum(mine != theirs))
  mine, theirs = mine.astype(np.float64), theirs.astype(np.float64)
  if (np.isnan(mine) != np.isnan(theirs)).any():
    return np.inf
  missing = np.isnan(theirs)
  mine, theirs = np.where(missing, 0, mine), np.where(missing, 0, theirs)
  off, size = np.abs(mine - theirs), np.abs(theirs)
  if measure.kind == 'pixels':
    if off.max() > measure.limit:
      return np.inf
    return float(np.mean(off > 1e-4))
  if measure.kind == 'absolute':
    return float(off.max())
  if measure.kind in ('each', 'rows'):
    if measure.kind == 'rows':
      axes = tuple(range(1, off.ndim))
      off, size = off.max(axes), size.max(axes)
    scale = np.where(size < measure.noise * size.max(), size.max(), size)
    return float((off / np.maximum(scale, measure.floor)).max())
  return float(off.max() / max(size.max(), measure.floor))


def judge(
  file: str,
  stored: Mapping[str, np.ndarray],
  mine: Mapping[str, np.ndarray],
  measures: Mapping[str, Measure],
  *,
  double: bool,
) -> list[Line]:
  """Returns one line for every array of a file.

  Args:
    file: Name of the file, for the lines.
    stored: What was recorded.
    mine: What we make of it, under the same keys.
    measures: From a regular expression for 'file:key' to its measure; the first
      that is found in it counts.
    double: Whether ours were computed in float64.
  """
  lines = []
  for key, value in stored.items():
    name = f'{file}:{key}'
    found = [m for end, m in measures.items() if re.search(end, name)]
    if key not in mine or not found:
      lines.append(failure(name, 'key not understood'))
      continue
    ours, theirs = np.asarray(mine[key]), np.asarray(value)
    note = ''
    if ours.shape != theirs.shape:
      note = f'shape {theirs.shape}, ours is {ours.shape}'
    lines.append(
      Line(
        name=name,
        error=error(found[0], ours, theirs),
        tolerance=tolerance(found[0], key, double),
        note=note,
      )
    )
  return lines


def tolerance(measure: Measure, key: str, double: bool) -> float:
  """Returns the tolerance for a key, whose prefix tells the precision."""
  if double and not key.startswith('f32/'):
    return measure.double
  both_single = not double and not key.startswith('f64/')
  if measure.mixed is None or both_single:
    return measure.single
  return measure.mixed
