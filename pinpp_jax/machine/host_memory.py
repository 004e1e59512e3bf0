"""Where programs compiled for a CPU get their working memory.

XLA's CPU client asks malloc for all temporaries of a call in one piece and
frees it afterwards. glibc gives so large a piece back to the kernel, which
clears it anew, page by page, at every step. What it gains to keep the piece is
in docs/benchmarks.md.
"""

import ctypes

import jax

# Of glibc's malloc.h and mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep() -> None:
  """Has glibc keep what this process frees, if JAX runs on the CPU.

  glibc keeps large pieces for the main thread alone, and so calls are made in
  the thread that asks for them. For that this comes before JAX's first use of
  its backend, but after `jax.distributed.initialize`. Other C libraries are
  left as they are.
  """
  jax.config.update('jax_cpu_enable_async_dispatch', False)
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if jax.default_backend() == 'cpu' and mallopt is not None:
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
