"""Records what AutoAttack's Square does, for test_square_walks.py.

Run once, after record_networks.py, with pyautoattack 0.2.0 and torch 2.13 on a
CPU, never by a test:

  pip install --no-deps --target /tmp/aa pyautoattack==0.2.0
  PYTHONPATH=/tmp/aa python -m tests.attacks.record_square

The unchanged code runs in float64: `Tensor.float` returns doubles here. Its
random numbers are drawn here, so that they can be recorded.
"""

import pathlib

import numpy as np
from pyautoattack import square
import torch

from tests.attacks import record_networks
from tests.attacks.record_networks import prints, use

FILE = pathlib.Path(__file__).parent / 'golden' / 'square.npz'
NORMS = {'linf': 'Linf', 'l2': 'L2', 'l1': 'L1'}
# Some images fall at the start, some on the way, some never.
EPS = {'linf': 0.09, 'l2': 3.5, 'l1': 40.0}
# The window sizes of every 25th iteration, so that they shrink.
QUERIES, STRIDE = 60, 25
KEPT = [0, 1, 2, 5, 10, 20, 30, 40, 50, 60]


class Replayed(square.SquareAttack):
  """Square with recorded draws; follows which images are still attacked."""

  def __init__(self, *args, rng, **kwargs):
    super().__init__(*args, **kwargs)
    self.rng, self.ints, self.turned, self.signs = rng, [], [], []
    self.x, self.margin, self.margins, self.points = None, None, [], []

  def random_int(self, low=0, high=1, shape=(1,)):
    assert low == 0
    self.ints.append(int(self.rng.random() * high))
    return torch.tensor([self.ints[-1]])

  def random_choice(self, shape):
    images = 1 if self.norm == 'Linf' and self.x is not None else self.images
    rest = shape if len(shape) == 3 else shape[1:]
    sign = np.sign(self.rng.random((images, *rest)) - 0.5)
    self.signs.append(sign.astype(np.int8))
    sign = torch.tensor(sign)
    if len(shape) == 3:
      return sign[0]
    return sign if self.x is None else sign[self.margin > 0]

  def eta(self, s):
    self.turned.append(bool(self.rng.random() > 0.5))
    rand, torch.rand = torch.rand, lambda _: torch.tensor([self.turned[-1]])
    pattern = super().eta(s)
    torch.rand = rand
    return pattern

  def p_selection(self, it):
    return super().p_selection(it * STRIDE)

  def margin_and_loss(self, x, y):
    margin, loss = super().margin_and_loss(x, y)
    if self.x is None:
      self.x, self.margin = x.clone(), margin.clone()
    else:
      where = (self.margin > 0).nonzero()[:, 0]
      better = margin < self.margin[where]
      self.x[where[better]] = x[better]
      self.margin[where[better]] = margin[better]
    self.margins.append(self.margin.numpy().copy())
    self.points.append(self.x.permute(0, 2, 3, 1).numpy().copy())
    return margin, loss


def record(norm, net, image, label, eps):
  """Returns the draws of QUERIES proposals, and where they led."""
  attack = Replayed(
    net, norm=NORMS[norm], eps=eps, n_queries=QUERIES, device='cpu',
    resc_schedule=False, rng=np.random.default_rng(5),
  )  # fmt: skip
  attack.init_hyperparam(image)
  attack.images = len(image)
  _, found = attack.attack_single_run(image, label)
  assert torch.equal(found, attack.x)
  margins = np.stack(attack.margins)
  print(norm, 'broken at start', (margins[0] <= 0).sum(), 'at the end',
        (margins[-1] <= 0).sum(), 'of', len(image))  # fmt: skip
  starts = len(attack.signs) - QUERIES
  return {
    'ints': np.reshape(attack.ints, (QUERIES, -1)).astype(np.int16),
    'turned': np.array(attack.turned),
    'start': np.stack(attack.signs[:starts]),
    'signs': np.stack(attack.signs[starts:]),
    'margins': margins,
    'prints': prints(np.stack(attack.points)[KEPT]),
  }


def main():
  use(torch.float64)
  weights, image, label, _ = record_networks.load(np.float64)
  net = lambda x: record_networks.forward('cnn', weights, x)
  out = {}
  for norm in NORMS:
    made = record(norm, net, image, label['cnn'], EPS[norm])
    out |= {f'{norm}/{k}': x for k, x in made.items()}
  np.savez_compressed(FILE, **out)


if __name__ == '__main__':
  main()
