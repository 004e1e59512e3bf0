"""Memory of compiled calls by XLA's plan, and of this process."""

import ctypes
import pathlib
from typing import Any

import jax


def mebibytes(compiled: jax.stages.Compiled) -> float:
  """Returns the MiB that a call needs, arguments and results included."""
  plan: Any = compiled.memory_analysis()
  size = (
    plan.temp_size_in_bytes
    + plan.argument_size_in_bytes
    + plan.output_size_in_bytes
    # What is donated appears as argument and as result.
    - plan.alias_size_in_bytes
  )
  return size / 2**20


def resident() -> float:
  """Returns the MiB that this process holds in main memory."""
  return _status('VmRSS')


def forget_peak() -> None:
  """Resets `resident_peak`, after returning free memory. Linux only."""
  # The allocator may still hold memory that compilers have freed.
  ctypes.CDLL(None).malloc_trim(0)
  pathlib.Path('/proc/self/clear_refs').write_text('5')


def resident_peak() -> float:
  """Returns the most MiB that this process held since `forget_peak`."""
  return _status('VmHWM')


def _status(field: str) -> float:
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  values = dict(line.split(':', 1) for line in lines if ':' in line)
  return int(values[field].split()[0]) / 2**10
