"""Metrics as (sum, count) pairs, their files, and progress lines."""

from collections.abc import Callable, Iterator, Mapping
import json
import math
import os
import pathlib
import time
from typing import Any

from absl import logging
import jax
import numpy as np

from pinpp_jax.machine import processes

FILE = 'metrics.jsonl'


def add(total: Any, part: Any) -> Any:
  """Adds up trees of (sum, count) on the host; None is zero.

  Returns:
    A tree like `part` with float64 leaves: a float32 count would stop growing
    at 2**24 examples.
  """
  part = jax.tree.map(
    lambda x: np.asarray(x, np.float64), processes.fetch(part)
  )
  return part if total is None else jax.tree.map(np.add, total, part)


def means(total: Mapping[str, tuple[Any, Any]] | None) -> dict[str, float]:
  """Divides each (sum, count) once; the mean of nothing is NaN."""
  return {
    name: float(s) / float(n) if n else math.nan
    for name, (s, n) in (total or {}).items()
  }


class Writer:
  """Appends rows to `workdir/metrics.jsonl` and to TensorBoard events.

  Only process 0 writes. When a run resumes from `step`, all later rows are
  first dropped, in one atomic replacement, so that repeated steps appear once.
  A row cut short by a kill is dropped as well.

  A value that is not finite becomes JSON `null` (`NaN` is not JSON), is left
  out of TensorBoard, and is named in a warning.

  Args:
    workdir: Folder of the run; made if missing.
    step: Step the run starts from, 0 for a new run.
    clock: Seconds since the epoch, for the field `time`.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    step: int = 0,
    *,
    clock: Callable[[], float] = time.time,
  ):
    self._clock = clock
    self._path = self._board = None
    if jax.process_index() != 0:
      return
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    self._path = workdir / FILE
    _keep_until(self._path, step)
    # It imports torch where there is one, which no reader of metrics needs.
    import tensorboardX

    # TensorBoard hides the values of an earlier attempt from here on.
    self._board = tensorboardX.SummaryWriter(
      str(workdir), purge_step=step + 1 if step else None
    )

  def __call__(self, step: int, values: Mapping[str, Any]) -> None:
    """Writes one row; `values` are scalars, on the device or not."""
    reserved = sorted({'step', 'time'} & set(values))
    if reserved:
      raise ValueError(f'{reserved} are fields of every row, not metrics.')
    fetched = processes.fetch(dict(values))  # In alphabetical order.
    floats = {name: float(fetched[name]) for name in values}
    bad = [name for name, v in floats.items() if not math.isfinite(v)]
    if bad:
      logging.warning('Step %d: not finite: %s.', step, ', '.join(bad))
    if self._path is None or self._board is None:
      return
    row = {'step': int(step), 'time': round(self._clock(), 3)}
    row |= {k: None if k in bad else v for k, v in floats.items()}
    with open(self._path, 'a', encoding='utf-8') as file:
      file.write(json.dumps(row, allow_nan=False) + '\n')
    for name, value in floats.items():
      if name not in bad:
        self._board.add_scalar(name, value, step)
    self._board.flush()

  def close(self) -> None:
    """Closes the event file."""
    if self._board is not None:
      self._board.close()

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def read(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Returns the rows written so far, in order; `null` comes back as NaN.

  A missing file is an empty list; a last line cut short is left out.
  """
  return [
    {k: math.nan if v is None else v for k, v in row.items()}
    for _, row in _rows(pathlib.Path(workdir) / FILE)
  ]


def _rows(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields (line, row) for the whole lines of a file that may be missing."""
  if not path.exists():
    return
  with open(path, encoding='utf-8', errors='replace') as file:
    for line in file:
      if not line.endswith('\n'):
        return
      try:
        row = json.loads(line)
      except ValueError:
        logging.warning('%s: skipped a damaged line.', path)
        continue
      yield line, row


def _keep_until(path: pathlib.Path, step: int) -> None:
  """Keeps only the rows up to `step`, replacing the file in one move."""
  if not path.exists():
    return
  kept = path.with_name(path.name + '.tmp')
  with open(kept, 'w', encoding='utf-8') as file:
    file.writelines(line for line, row in _rows(path) if row['step'] <= step)
    file.flush()
    os.fsync(file.fileno())
  os.replace(kept, path)


class Progress:
  """Says how far a run is: step, loss, images/s and time left.

  Args:
    total: Step at which the run ends.
    batch_size: Images per step, over all devices.
    step: Step the run starts from.
    clock: Seconds; if they do not grow, one line shows no speed.
  """

  def __init__(
    self,
    total: int,
    batch_size: int,
    *,
    step: int = 0,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._total, self._batch_size, self._clock = total, batch_size, clock
    self._step, self._time = step, clock()
    self._seconds_per_step: float | None = None

  def __call__(self, step: int, loss: float) -> str:
    """Returns one line, e.g. `step 50/200 (25 %)  loss 2.3010 ...`."""
    rate = self._advance(step)
    speed = '--' if rate is None else f'{rate * self._batch_size:,.1f}'
    percent = 100 * step / max(self._total, 1)
    return (
      f'step {step:,}/{self._total:,} ({percent:.0f} %)'
      f'  loss {loss:.4f}  {speed} images/s  ETA {self._left(step)}'
    )

  def bar(self, step: int, width: int = 30) -> str:
    """Returns a bar for a terminal, drawn over the previous one."""
    share = min(max(step / max(self._total, 1), 0.0), 1.0)
    full = round(share * width)
    cells = '#' * full + '.' * (width - full)
    return f'\r[{cells}] {step:,}/{self._total:,}  ETA {self._left(step)}  '

  def _advance(self, step: int) -> float | None:
    """Returns the steps per second since the last line, None if unknown."""
    now = self._clock()
    steps, seconds = step - self._step, now - self._time
    self._step, self._time = step, now
    if steps <= 0 or seconds <= 0:
      return None
    fresh, old = seconds / steps, self._seconds_per_step
    # Half the weight to the latest interval: compilation is soon forgotten.
    self._seconds_per_step = fresh if old is None else (old + fresh) / 2
    return steps / seconds

  def _left(self, step: int) -> str:
    if self._seconds_per_step is None:
      return '--'
    seconds = round(max(self._total - step, 0) * self._seconds_per_step)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f'{hours}:{minutes:02}:{seconds % 60:02}'
