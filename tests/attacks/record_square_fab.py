"""Records what AutoAttack's FAB and Square do, for test_{fab,square}.py.

Run once, with pyautoattack 0.2.0 and torch 2.13 on a CPU, never by a test:

  pip install --no-deps --target /tmp/aa pyautoattack==0.2.0
  PYTHONPATH=/tmp/aa python tests/attacks/record_square_fab.py

The unchanged code runs in float64: `Tensor.float` returns doubles here.
"""

import pathlib

import numpy as np
from pyautoattack import fab_pt, square
import torch
from torch import nn

FOLDER = pathlib.Path(__file__).parent / 'golden'
NORMS = {'linf': 'Linf', 'l2': 'L2', 'l1': 'L1'}
# About half of the images fall to some target, fewer to the first.
EPS = {'linf': 0.03, 'l2': 0.3, 'l1': 2.0}
STEPS, TARGETS = 25, 3
QUERIES, STRIDE = 30, 40


class Net(nn.Module):
  def __init__(self):
    super().__init__()
    self.first = nn.Conv2d(3, 6, 3, padding=1)
    self.last = nn.Linear(6 * 4 * 4, 6)

  def forward(self, x):
    x = torch.tanh(3 * self.first(x - 0.5))
    x = nn.functional.avg_pool2d(x, 2)
    # As NHWC, so that no weight needs to be permuted.
    return 3 * self.last(x.permute(0, 2, 3, 1).flatten(1))


def nhwc(x):
  return x.detach().permute(0, 2, 3, 1).contiguous().numpy()


def weights(net):
  return {
    'kernel': net.first.weight.detach().permute(2, 3, 1, 0).numpy(),
    'bias': net.first.bias.detach().numpy(),
    'last_kernel': net.last.weight.detach().T.numpy(),
    'last_bias': net.last.bias.detach().numpy(),
  }


def record_fab():
  torch.manual_seed(0)
  net = Net()
  image = torch.rand(10, 3, 8, 8)
  image[0, :, :3], image[1, :, :3] = 0, 1  # the box binds
  label = net(image).argmax(1)
  label[2] = (label[2] + 1) % 6
  out = weights(net) | {'image': nhwc(image), 'label': label.numpy()}
  out |= {'steps': STEPS, 'targets': TARGETS}
  for norm, name in NORMS.items():
    for form, targeted in (('targeted', True), ('nearest', False)):
      attack = fab_pt.FABAttack_PT(
        net, norm=name, eps=EPS[norm], n_iter=STEPS, n_restarts=1,
        targeted=targeted, n_target_classes=TARGETS, device='cpu',
      )  # fmt: skip
      found = attack.perturb(image, label)
      print(norm, form, int((found != image).flatten(1).any(1).sum()))
      out[f'{norm}_{form}'] = nhwc(found)
    out[f'{norm}_eps'] = EPS[norm]
  np.savez_compressed(FOLDER / 'fab.npz', **out)


class Recorder(square.SquareAttack):
  """Square that keeps its draws; window sizes of every 40th iteration."""

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self.ints, self.signs = [], []

  def random_int(self, *args, **kwargs):
    self.ints.append(super().random_int(*args, **kwargs))
    return self.ints[-1]

  def random_choice(self, shape):
    self.signs.append(super().random_choice(shape))
    return self.signs[-1]

  def p_selection(self, it):
    return super().p_selection(it * STRIDE)


def record_square():
  torch.manual_seed(1)
  image = torch.rand(1, 3, 10, 10)
  out = {'image': nhwc(image)[0], 'stride': STRIDE}
  direction = torch.randn(300)
  for norm, name in NORMS.items():
    seen, values, turned = [], [], []

    def model(x, seen=seen, values=values):
      seen.append(x.clone())
      score = 100 + (x.flatten(1) * direction).sum(1)  # never broken
      values.append(float(score))
      return torch.stack([score, torch.zeros_like(score)], 1)

    attack = Recorder(
      model, norm=name, eps=EPS[norm] * 3, n_queries=QUERIES, seed=0,
      resc_schedule=False, device='cpu',
    )  # fmt: skip
    rand = torch.rand

    def recorded(shape, rand=rand, turned=turned):
      x = rand(shape)
      if shape == [1]:
        turned.append(float(x))
      return x

    attack.init_hyperparam(image)
    torch.rand = recorded
    attack.attack_single_run(image, torch.tensor([0]))
    torch.rand = rand
    points = nhwc(torch.cat(seen))
    kept = [0, 1, 2, 5, 10, 20, QUERIES]
    out[f'{norm}_eps'] = EPS[norm] * 3
    out[f'{norm}_ints'] = torch.cat(attack.ints).numpy().reshape(QUERIES, -1)
    # Random integers draw uniform numbers too; those of patterns remain.
    draws, ints = [], len(attack.ints) // QUERIES
    if norm != 'linf':
      tiles = len(turned) - QUERIES * (ints + 1)
      draws = turned[:tiles] + turned[tiles:][ints :: ints + 1]
    out[f'{norm}_turned'] = np.array(draws) > 0.5
    signs = [x.flatten().numpy() for x in attack.signs]
    start = signs[:-QUERIES]
    out[f'{norm}_start'] = np.stack(start)
    out[f'{norm}_signs'] = np.stack(signs[-QUERIES:])
    best = np.minimum.accumulate(values)
    out[f'{norm}_better'] = np.array(values[1:]) < best[:-1]
    out[f'{norm}_kept'] = np.array(kept)
    out[f'{norm}_points'] = points[kept]
  np.savez_compressed(FOLDER / 'square.npz', **out)


if __name__ == '__main__':
  torch.set_default_dtype(torch.float64)
  torch.Tensor.float = lambda self: self.double()  # type: ignore
  record_fab()
  record_square()
