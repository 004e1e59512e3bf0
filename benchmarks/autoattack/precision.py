"""Rounds of APGD from the same starts, PyTorch's and ours, in two precisions.

  pip install -e '.[dev,torch]'
  python -m benchmarks.autoattack.precision
  python -m benchmarks.autoattack.precision --quick

On the two small networks of the attacks' tests and images of the training
distribution. It counts images that are robust on one side only: the effect of
precision alone, of the implementation alone, and, for L1, of not counting
pixels that PyTorch's code changes by rounding alone
(`record_apgd.only_real_changes`). In float64 it also counts images whose best
iterate differs by more than 1e-9: between ours and PyTorch's, and between
PyTorch's and itself with the pixels in another order in the L1 projection.
"""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pyautoattack import autopgd_base
import torch

from benchmarks.autoattack.agreement import draw_images
from pinpp_jax.attacks.apgd import APGD, LOSSES
from tests.attacks import record_apgd, record_networks
from tests.attacks.conftest import Recorded
from tests.attacks.walks import Run

EPS = record_apgd.EPS
SAME = 1e-9


class Data(NamedTuple):
  """Float32 images, labels and the starts of all walks, NHWC."""

  image: np.ndarray
  label: np.ndarray
  start: np.ndarray


class End(NamedTuple):
  """The end of walks: robust images, and the iterates of largest loss."""

  robust: np.ndarray
  best: np.ndarray


def draw(net: str, norm: str, number: int) -> Data:
  """Returns 8-bit images as float32, and starts around them."""
  image, label = draw_images(number)
  # In 256 levels, which float32 does not represent exactly.
  image = np.round(image * 255).astype(np.float32) / np.float32(255)
  noise = np.random.default_rng(5).normal(size=image.shape).astype(np.float32)
  noise = np.round(noise * 42).clip(-127, 127)
  start = record_networks.starts(image, noise, EPS[net])[norm]
  return Data(image, label, start)


def theirs(net: str, norm: str, loss: str, data: Data, dtype: Any) -> End:
  """Returns the ends of PyTorch's walks."""
  record_networks.use({4: torch.float32, 8: torch.float64}[dtype().itemsize])
  weights = record_networks.load(dtype)[0]
  forward = lambda x: record_networks.forward(net, weights, x)
  nchw = lambda x: torch.tensor(x.astype(dtype)).permute(0, 3, 1, 2)
  image, start = (nchw(x).contiguous() for x in (data.image, data.start))
  given = forward, image, torch.tensor(data.label), {norm: start}
  _, ends, best, _ = record_apgd.walk(net, norm, loss, given)
  record_networks.use(torch.float32)
  return End(ends['robust'], best)


def ours(net: str, norm: str, loss: str, data: Data, dtype: Any) -> End:
  """Returns the ends of our walks."""
  with jax.enable_x64(dtype is np.float64):
    attack = APGD(eps=EPS[net][norm], norm=norm, loss=loss, target_classes=1)
    image, start = (jnp.asarray(x, dtype) for x in (data.image, data.start))
    label = jnp.asarray(data.label, jnp.int32)
    network = Recorded().network(net, dtype)
    _, _, last = Run(attack, network, image, label, start).walk()
  return End(np.asarray(last.robust), np.asarray(last.best_x))


@contextlib.contextmanager
def another_order() -> Iterator[None]:
  """Makes PyTorch's L1 projection process the pixels in reverse order."""
  project = autopgd_base.L1_projection
  turn = lambda x: x.flip(1, 2, 3)
  autopgd_base.L1_projection = lambda image, delta, eps: turn(
    project(turn(image), turn(delta), eps)
  )
  try:
    yield
  finally:
    autopgd_base.L1_projection = project


def compare(net: str, norm: str, loss: str, images: int) -> dict[str, int]:
  """Returns how many images are robust, differ, or end elsewhere."""
  data, case = draw(net, norm, images), (net, norm, loss)
  t32, t64 = (theirs(*case, data, x) for x in (np.float32, np.float64))
  o32, o64 = (ours(*case, data, x) for x in (np.float32, np.float64))
  flags = lambda a, b: int((a.robust != b.robust).sum())
  ends = lambda a, b: int((abs(a.best - b.best).max((1, 2, 3)) > SAME).sum())
  row = {
    'robust': int(t64.robust.sum()),
    'torch32-ours32': flags(t32, o32),
    'torch32-torch64': flags(t32, t64),
    'ours32-ours64': flags(o32, o64),
    'torch64-ours64': flags(t64, o64),
    'ends': ends(t64, o64),
  }
  if norm == 'l1':
    with record_apgd.only_real_changes():
      counted = theirs(*case, data, np.float32)
    with another_order():
      turned = theirs(*case, data, np.float64)
    row['counted32-ours32'] = flags(counted, o32)
    row['counted32-torch64'] = flags(counted, t64)
    row['ends of torch64'] = ends(t64, turned)
  return row


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints one row for each network, norm and loss."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--images', type=int, default=250)
  parser.add_argument('--norms', nargs='+', default=['linf', 'l2', 'l1'])
  parser.add_argument('--quick', action='store_true', help='one small row')
  options = parser.parse_args(arguments)
  cases = [
    (net, norm, loss)
    for norm in options.norms
    for net in ('cnn', 'resnet')
    for loss in LOSSES
  ]
  if options.quick:
    cases, options.images = [('cnn', 'l1', 'ce')], 2
  print(f'{options.images} images; of them, by network, norm and loss:')
  # The networks are too small for more threads.
  torch.set_num_threads(1)
  for case in cases:
    row = compare(*case, options.images)
    counts = ', '.join(f'{name} {count}' for name, count in row.items())
    print(f'{" ".join(case)}: {counts}', flush=True)


if __name__ == '__main__':
  main()
