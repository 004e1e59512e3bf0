"""Lines of the log that say how far long work is."""

from collections.abc import Callable, Iterable, Iterator
import time
from typing import TypeVar

from absl import logging

SECONDS = 10.0  # From line to line.

_T = TypeVar('_T')


def lines(
  items: Iterable[_T],
  total: int,
  what: str,
  clock: Callable[[], float] = time.monotonic,
) -> Iterator[_T]:
  """Passes items on; work of over ten seconds logs its rate and time left.

  Args:
    items: What is worked on, one after another.
    total: How many there are.
    what: Names the work, such as 'Indexing train.tar'.
    clock: Seconds.
  """
  start = said = clock()
  for done, item in enumerate(items):
    now = clock()
    if now - said >= SECONDS:
      said = now
      logging.info('%s: %s', what, line(done, total, now - start))
    yield item


def line(done: int, total: int, seconds: float) -> str:
  """Returns '5/20 (25 %)  0.5/s  ETA 0:00:30'."""
  rate = done / max(seconds, 1e-9)
  left = round((total - done) / rate) if done else 0
  return (
    f'{done:,}/{total:,} ({100 * done / max(total, 1):.0f} %)  {rate:,.1f}/s'
    f'  ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}'
  )
