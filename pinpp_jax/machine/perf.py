"""Speed of a run, time spent waiting for data, profiles of chosen steps."""

from collections.abc import Iterator, Sequence
import contextlib
import pathlib
import time
from typing import Any

from absl import logging
import jax
import numpy as np

from pinpp_jax.errors import UserError

QUANTILES = (50, 90, 99)


class Meter:
  """Measures steps; the time between them (scores, saving) does not count.

  Use it as a context manager around the loop, `step(i)` around each step and
  `wait(batches)` for its batch. A step ends when the metrics of the step before
  it have arrived, so that a step is as long as the device needs.

  Args:
    batch_size: Images of a step, over all devices.
    profile: (first, last) step to profile, () for none.
    folder: For the profile; `xprof --logdir FOLDER` opens it.
  """

  def __init__(
    self, batch_size: int, profile: Sequence[int], folder: pathlib.Path
  ):
    if profile and (len(profile) != 2 or not 0 < profile[0] <= profile[1]):
      raise UserError(
        f'profile={tuple(profile)} must be the first and the last step to'
        ' profile, such as (10, 20).'
      )
    self._batch_size = batch_size
    self._first, self._last = profile or (0, 0)
    self._folder = folder
    self._profiling = False
    self._seconds: list[float] = []
    self._waited = 0.0
    self._compilations = Compilations()

  def __enter__(self) -> 'Meter':
    self._compilations.count(True)
    return self

  def __exit__(self, *_):
    self._compilations.count(False)
    self._stop_profile()

  @contextlib.contextmanager
  def step(self, number: int) -> Iterator[None]:
    """Times a step, and profiles it if it is one of the chosen."""
    if self._first <= number <= self._last and not self._profiling:
      jax.profiler.start_trace(self._folder)
      self._profiling = True
    start = time.perf_counter()
    with jax.profiler.StepTraceAnnotation('train', step_num=number):
      yield
    self._seconds.append(time.perf_counter() - start)
    if number == self._last:
      self._stop_profile()

  def wait(self, batches: Iterator[Any]) -> Any:
    """Returns the next batch."""
    start = time.perf_counter()
    batch = next(batches)
    self._waited += time.perf_counter() - start
    return batch

  def read(self) -> dict[str, float]:
    """Returns `perf/...` of the steps since the last call.

    Images per second; quantiles of the step time in seconds; the share of the
    time spent waiting for batches; the peak memory of one device of this
    process, in GiB, where the backend reports it; and the number of programs
    that XLA has compiled or read from the cache so far, and its seconds.
    """
    total = max(sum(self._seconds), 1e-9)
    values = {
      'images_per_second': self._batch_size * len(self._seconds) / total,
      'data_wait': self._waited / total,
      'compilations': self._compilations.number,
      'compile_seconds': self._compilations.seconds,
    }
    for q in QUANTILES if self._seconds else ():
      values[f'step_seconds_p{q}'] = float(np.percentile(self._seconds, q))
    if memory := _device_memory():
      values['device_memory_gib'] = memory / 2**30
    self._seconds, self._waited = [], 0.0
    return {f'perf/{name}': value for name, value in values.items()}

  def _stop_profile(self) -> None:
    if self._profiling:
      jax.profiler.stop_trace()
      self._profiling = False
      logging.info(
        'To view the profile: pip install xprof; xprof --logdir %s',
        self._folder,
      )


class Compilations:
  """Counts what XLA compiles, in all threads of the process."""

  def __init__(self):
    self.number = 0
    self.seconds = 0.0
    self._counting = False
    # Old JAX has no public way to remove a listener: it stays, idle.
    jax.monitoring.register_event_duration_secs_listener(self._note)

  def count(self, counting: bool) -> None:
    """Turns counting on or off."""
    self._counting = counting

  def _note(self, event: str, duration_secs: float, **_) -> None:
    if self._counting and event == '/jax/core/compile/backend_compile_duration':
      self.number += 1
      self.seconds += duration_secs


def _device_memory() -> int:
  """Returns the largest peak of a device in bytes, 0 if none is reported."""
  told = [device.memory_stats() or {} for device in jax.local_devices()]
  return max(stats.get('peak_bytes_in_use', 0) for stats in told)
