"""On a CPU a call that was made before asks the kernel for no more memory."""

import platform
import subprocess
import sys

import pytest

# Prints the pages that a call makes the kernel clear, in a process of its
# own: allocators' settings are a process's.
PROGRAM = """
import ctypes, resource, sys
import jax, jax.numpy as jnp
from pinpp_jax.machine import host_memory

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # No huge pages: fewer, not less.
if sys.argv[1] == 'kept':
  host_memory.keep()

def chain(x, w):  # 200 MB of temporaries, all alive at once
  layers = [x]
  for _ in range(10):
    layers.append(jnp.tanh(layers[-1] @ w))
  return sum((a @ w).sum() * b.sum() for a, b in zip(layers, layers[::-1]))

step = jax.jit(jax.grad(chain, argnums=1))
x, w = jnp.ones((40_000, 125)), jnp.ones((125, 125)) / 125
found = []
for _ in range(8):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  jax.block_until_ready(step(x, w))
  found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(found))  # Each thread has to see its largest piece first.
"""


def pages(how):
  out = subprocess.run(
    [sys.executable, '-c', PROGRAM, how],
    capture_output=True,
    text=True,
    check=True,
    env={'JAX_PLATFORMS': 'cpu', 'PATH': ''},
  )
  return int(out.stdout.split()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='needs glibc')
def test_memory_is_kept_from_call_to_call():
  usual, kept = pages('usual'), pages('kept')
  assert usual > 20_000  # 80 MB and more of 4 kB pages
  assert kept < usual / 20
