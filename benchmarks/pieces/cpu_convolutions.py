"""The CPU forms of convolution against XLA's, over all layers of a network.

  JAX_PLATFORMS=cpu taskset -c 0 python -m benchmarks.pieces.cpu_convolutions
  JAX_PLATFORMS=cpu python -m benchmarks.pieces.cpu_convolutions --clock=wall
  python -m benchmarks.pieces.cpu_convolutions --quick

Every different convolution of an MPM, by XLA and in the form that
`models/cpu_forms.py` has for it: result, input gradient, weight gradient. Sums
over the layers, each counted as often as it occurs, in CPU seconds, which
depend less on other work than wall time does. The gain from using more cores
shows only in wall time, on an idle machine.
"""

import argparse
import collections
import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing, train_step
from pinpp_jax import models
from pinpp_jax.models import cpu_forms

PASSES = ('result', 'input gradient', 'weight gradient')


def convolutions(options: argparse.Namespace) -> collections.Counter[Any]:
  """Returns shapes and keywords of all convolutions, and how often they are."""
  model = models.MPM(
    num_classes=train_step.CLASSES,
    num_parts=train_step.PARTS,
    depth=options.depth,
    width=options.width,
  )
  found: collections.Counter[Any] = collections.Counter()
  original = cpu_forms.convolve

  def record(x, kernel, **keywords):
    keywords['rewrite'] = False
    found[x.shape, kernel.shape, tuple(keywords.items())] += 1
    return original(x, kernel, **keywords)

  init = functools.partial(model.init, train=False, parts=True)
  shape = options.batch, options.size, options.size, 3
  with mock.patch.object(cpu_forms, 'convolve', record):
    jax.eval_shape(
      init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32)
    )
  return found


def form_of(shape: Any, kernel: Any, keywords: dict[str, Any]) -> str:
  """Returns the name of a convolution's form, '' if it has none."""
  form = cpu_forms.fast_form(
    shape,
    kernel,
    keywords['stride'],
    keywords['padding'],
    keywords['depthwise'],
  )
  return form.__name__.strip('_').replace('_', ' ') if form else ''


def seconds(
  shape: Any, kernel: Any, keywords: dict[str, Any], options: argparse.Namespace
) -> list[float]:
  """Returns seconds of the three passes."""
  rng = np.random.default_rng(0)
  draw = lambda s: jnp.asarray(rng.standard_normal(s, np.float32))
  x, w = draw(shape), draw(kernel)
  call = lambda x, w: cpu_forms.convolve(x, w, **keywords)
  slope = draw(jax.eval_shape(call, x, w).shape)
  passes = (
    call,
    lambda x, w: jax.vjp(lambda x: call(x, w), x)[1](slope),
    lambda x, w: jax.vjp(lambda w: call(x, w), w)[1](slope),
  )
  compiled = [jax.jit(f).lower(x, w).compile() for f in passes]
  return [_shortest(call, x, w, options) for call in compiled]


def _shortest(call: Any, x: Any, w: Any, options: argparse.Namespace) -> float:
  clock = timing.CLOCKS[options.clock]
  jax.block_until_ready(call(x, w))
  taken = []
  for _ in range(options.times):
    start = clock()
    jax.block_until_ready(call(x, w))
    taken.append(clock() - start)
  return min(taken)


def main() -> None:
  """Prints one line for each form and pass."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--batch', type=int, default=2)
  parser.add_argument('--size', type=int, default=224)
  parser.add_argument('--depth', type=int, default=50)
  parser.add_argument('--width', type=int, default=64)
  parser.add_argument('--times', type=int, default=4)
  parser.add_argument('--clock', choices=timing.CLOCKS, default='cpu')
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  if options.quick:
    options.size, options.depth, options.width, options.times = 32, 10, 8, 1
  totals: Any = collections.defaultdict(lambda: np.zeros((2, 3)))
  for (shape, kernel, items), count in convolutions(options).items():
    keywords = dict(items)
    form = form_of(shape, kernel, keywords)
    if form:
      for i, rewrite in enumerate((False, True)):
        keywords['rewrite'] = rewrite
        taken = seconds(shape, kernel, keywords, options)
        totals[form][i] += count * np.array(taken)
  for form, (plain, rewritten) in totals.items():
    for name, a, b in zip(PASSES, plain, rewritten, strict=True):
      print(
        f'{form:14} {name:16} {a * 1e3:8.1f} ms plain {b * 1e3:8.1f} ms'
        f' rewritten: {a / b:.2f} x as fast'
      )


if __name__ == '__main__':
  main()
