"""Where programs compiled for a CPU get their working memory.

XLA's CPU client asks malloc for all temporaries of a call in one piece and
frees it afterwards. glibc gives so large a piece back to the kernel, which
clears it anew, page by page, at every step. In smaller pieces glibc can keep
it. What that gains is in docs/benchmarks.md.
"""

import ctypes
from typing import Any

import jax

# Bytes that XLA asks for at a time, unless a single array has more. glibc keeps
# no piece of 32 MiB or more.
PIECE = 32 * 10**6

# Of glibc's malloc.h and mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def compiler_options() -> dict[str, Any] | None:
  """Returns what `jax.jit` is to tell the compiler, None on accelerators."""
  if jax.default_backend() != 'cpu':
    return None
  return {'xla_multiheap_size_constraint_per_heap': PIECE}


def keep() -> None:
  """Has glibc keep what this process frees, where JAX runs on the CPU.

  Other C libraries are left as they are.
  """
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if jax.default_backend() != 'cpu' or mallopt is None:
    return
  # Threads have arenas of 64 MiB: none is given back, nor its end.
  mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)
  mallopt(_M_TOP_PAD, 64 * 2**20)
  mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
