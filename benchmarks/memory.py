"""What a compiled call needs, by XLA's own plan."""

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
