"""Rounding errors of the forms of convolution for CPUs, and of XLA's own.

  JAX_PLATFORMS=cpu python -m benchmarks.pieces.cpu_accuracy
  python -m benchmarks.pieces.cpu_accuracy --quick

For one layer of each kind of a ResNet-50 at 224 px: root mean square error of
the float32 result, of its gradient to the image and of that to the weights,
against the same in float64, over the root mean square of the float64 numbers.
"""

import argparse
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax.models import cpu_forms

# Form: pixels a side, kernel, options of `cpu_forms.convolve`.
LAYERS: dict[str, tuple[int, tuple[int, ...], dict[str, Any]]] = {
  'pointwise': (28, (1, 1, 256, 128), dict()),
  'one product': (14, (3, 3, 256, 256), dict(stride=2, padding=1)),
  'all cores': (56, (3, 3, 64, 64), dict(padding=1)),
  'depthwise': (28, (3, 3, 1, 256), dict(padding=1, depthwise=True)),
  'stem': (224, (7, 7, 3, 64), dict(stride=2, padding=3)),
}


def results(
  name: str, batch: int, dtype: Any, *, rewrite: bool
) -> list[np.ndarray]:
  """Returns result, gradient to the image and gradient to the weights."""
  side, shape, options = LAYERS[name]
  rng = np.random.default_rng(0)
  channels = shape[3] if options.get('depthwise') else shape[2]
  x = rng.standard_normal((batch, side, side, channels), np.float32)
  kernel = rng.standard_normal(shape, np.float32)
  call = functools.partial(cpu_forms.convolve, rewrite=rewrite, **options)
  y, pull = jax.vjp(call, jnp.asarray(x, dtype), jnp.asarray(kernel, dtype))
  weights = rng.standard_normal(y.shape, np.float32)
  found = (y, *pull(jnp.asarray(weights, dtype)))
  return [np.asarray(one, np.float64) for one in found]


def errors(name: str, batch: int) -> dict[str, list[float]]:
  """Returns three relative errors of XLA's own operation and of the form."""
  with jax.enable_x64(True):
    exact = results(name, batch, np.float64, rewrite=False)
  found = {}
  for title, rewrite in (('XLA', False), ('form', True)):
    single = results(name, batch, np.float32, rewrite=rewrite)
    found[title] = [
      float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))
      for a, b in zip(single, exact, strict=True)
    ]
  return found


def main() -> None:
  """Prints one table."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  if options.quick:
    options.batch = 1
  kinds = ('result', 'to image', 'to weights')
  print(f'{"":14}' + ''.join(f'{kind + " XLA, form":>26}' for kind in kinds))
  for name in LAYERS:
    found = errors(name, options.batch)
    pairs = zip(found['XLA'], found['form'], strict=True)
    print(f'{name:14}' + ''.join(f'{a:15.1e}, {b:.1e}  ' for a, b in pairs))


if __name__ == '__main__':
  main()
