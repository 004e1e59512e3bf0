"""Contestants take turns, each in its own process.

So no contestant's memory, threads or allocator settings affect another, and
peak memory is that of one contestant.
"""

from collections.abc import Callable
import dataclasses
import multiprocessing
import resource
import statistics
import time
from typing import Any

import jax
import torch

from benchmarks import timing
from benchmarks.pieces import memory
from benchmarks.race import work
from pinpp_jax.machine import perf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
  """Rules of the timing.

  Attributes:
    warm: Calls after the first and before the first turn.
    steps: Calls in a block, of which the last is waited for.
    clock: 'wall', or 'cpu' for the CPU time of the process.
  """

  warm: int
  steps: int
  clock: str


def nothing() -> None:
  """Prepares nothing."""


class Contestant:
  """A function in its own process, called in turns.

  Args:
    make: Returns the function to call; runs in the process; pickled.
    arguments: Of `make`.
    rules: How it is timed.
    prepare: Called in the process before anything else; pickled.

  Attributes:
    first: Seconds of the first call, compilation included.
  """

  def __init__(
    self,
    make: Callable[..., Any],
    arguments: tuple,
    rules: Rules,
    prepare: Callable[[], None],
  ):
    context = multiprocessing.get_context('spawn')
    self._pipe, theirs = context.Pipe()
    self._process = context.Process(
      target=_serve, args=(theirs, make, arguments, rules, prepare), daemon=True
    )
    self._process.start()
    theirs.close()
    self.first: float = self._answer()

  def block(self) -> float:
    """Returns the seconds per call of a block, after one untimed call.

    The untimed call refills memory and caches after the turns of others, as in
    a training run, where a step follows a step.
    """
    self._pipe.send(True)
    return self._answer()

  def end(self) -> dict[str, float]:
    """Ends the process.

    Returns:
      'compiled', the programs compiled during the blocks, 'pages', the pages
      that the kernel cleared per call, and 'mebibytes', the peak memory,
      weights included.
    """
    self._pipe.send(False)
    found = self._answer()
    self._process.join()
    return found

  def _answer(self) -> Any:
    try:
      return self._pipe.recv()
    except EOFError:
      raise SystemExit('A contestant failed; its error is above.') from None


def _serve(
  pipe: Any,
  make: Callable[..., Any],
  arguments: tuple,
  rules: Rules,
  prepare: Callable[[], None],
) -> None:
  """Runs a contestant in its process, one block per request."""
  prepare()
  jax.block_until_ready(jax.numpy.zeros(1))  # The library itself.
  rest = memory.resident()
  call, clock = make(*arguments), timing.CLOCKS[rules.clock]
  start = time.perf_counter()
  _block(call, 1)
  first = time.perf_counter() - start
  _block(call, rules.warm)
  compilations = Compilations()
  memory.forget_peak()
  pipe.send(first)
  pages = []
  while pipe.recv():
    _block(call, 1)
    before, start = _pages(), clock()
    _block(call, rules.steps)
    pipe.send((clock() - start) / rules.steps)
    pages.append((_pages() - before) / rules.steps)
  pipe.send(
    {
      'compiled': compilations.number(),
      'pages': statistics.median(pages),
      'mebibytes': _peak(rest),
    }
  )


def _block(call: Callable[[], Any], steps: int) -> None:
  result = None
  for _ in range(steps):
    result = call()
  work.wait(result)


class Compilations:
  """Counts the programs that either library compiles from now on."""

  def __init__(self):
    self._ours = perf.Compilations()
    self._ours.count(True)
    self._before = self._graphs()

  def number(self) -> int:
    """Returns the programs compiled so far."""
    return self._ours.number + self._graphs() - self._before

  def _graphs(self) -> int:
    counters: Any = torch._dynamo.utils.counters
    return counters['stats']['unique_graphs']


def _pages() -> int:
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _peak(rest: float) -> float:
  """Returns the peak in MiB: of the GPU, or of main memory above `rest`."""
  if not torch.cuda.is_available():
    return memory.resident_peak() - rest
  stats = jax.devices()[0].memory_stats()
  ours = stats['peak_bytes_in_use'] if stats else 0
  return max(torch.cuda.max_memory_allocated(), ours) / 2**20
