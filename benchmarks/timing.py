"""Interleaved timing: contestants take turns, so drift affects all equally."""

from collections.abc import Callable, Mapping
import statistics
import time
from typing import Any

import jax

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}


def interleaved(
  contestants: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
  """Times each contestant once per round, after one warm-up call of each.

  Args:
    contestants: Functions returning arrays that are waited for.
    rounds: Timed calls of each.

  Returns:
    Seconds of every timed call, in order.
  """
  for call in contestants.values():
    jax.block_until_ready(call())
  seconds: dict[str, list[float]] = {name: [] for name in contestants}
  for _ in range(rounds):
    for name, call in contestants.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      seconds[name].append(time.perf_counter() - start)
  return seconds


def row(name: str, seconds: list[float]) -> str:
  """Returns 'name  median (min to max)' in milliseconds."""
  low, high = min(seconds) * 1e3, max(seconds) * 1e3
  middle = statistics.median(seconds) * 1e3
  return f'{name:32} {middle:10.1f} ms   ({low:.1f} to {high:.1f})'


def ratio(slow: list[float], fast: list[float]) -> float:
  """Returns the median over rounds of how many times longer `slow` took."""
  return statistics.median(a / b for a, b in zip(slow, fast, strict=True))
