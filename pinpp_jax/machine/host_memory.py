"""Keeps the working memory of programs compiled for a CPU between calls.

XLA's CPU client asks malloc for all temporaries of a call in one block and
frees it afterwards. glibc returns so large a block to the kernel, which clears
it again, page by page, at every step. docs/benchmarks.md has the gain from
keeping it.
"""

import ctypes

import jax

# Constants of glibc's malloc.h, see mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep() -> None:
  """Makes glibc keep the memory that this process frees, if JAX uses the CPU.

  glibc keeps large blocks for the main thread alone, so JAX is told to run
  programs in the calling thread. Call this before JAX first uses its backend,
  but after `jax.distributed.initialize`. Other C libraries are left alone.
  """
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if jax.default_backend() == 'cpu' and mallopt is not None:
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
