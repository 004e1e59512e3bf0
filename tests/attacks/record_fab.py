"""Records how AutoAttack's FAB walks, for test_fab_walks.py.

Run once, after record_networks.py, with pyautoattack 0.2.0 and torch 2.13 on a
CPU, never by a test:

  pip install --no-deps --target /tmp/aa pyautoattack==0.2.0
  PYTHONPATH=/tmp/aa python -m tests.attacks.record_fab

The code runs unchanged: of each step's two calls of the network one is at the
point to project from, one at the point found. It runs in float64, where
`Tensor.float` returns doubles, and for the verdicts as it is.
"""

import pathlib

import numpy as np
from pyautoattack import fab_pt
import torch

from tests.attacks import record_networks
from tests.attacks.record_networks import prints, use

FILE = pathlib.Path(__file__).parent / 'golden' / 'fab.npz'
NORMS = {'linf': 'Linf', 'l2': 'L2', 'l1': 'L1'}
EPS = {
  'cnn': {'linf': 0.045, 'l2': 0.8, 'l1': 6.0},
  'resnet': {'linf': 0.033, 'l2': 0.55, 'l1': 4.5},
}
# Towards one class, from the image; to the nearest, from a random start.
CASES = [('cnn', norm, 'targeted', 100) for norm in NORMS]
CASES += [('cnn', norm, 'nearest', 20) for norm in NORMS]
CASES += [('resnet', 'linf', 'targeted', 100)]
KEPT = [0, 1, 2, 3, 5, 10, 20, 40, 60, 80, 99]
TARGETS = 3


def attacker(net, name, norm, **options):
  return fab_pt.FABAttack_PT(
    net, norm=NORMS[norm], eps=EPS[name][norm], n_restarts=1, device='cpu',
    **options,
  )  # fmt: skip


def walk(name, norm, form, steps):
  use(torch.float64)
  weights, image, label, noise = record_networks.load(np.float64)
  label = label[name]
  seen = []

  def net(x):
    if x.requires_grad:
      seen.append(x.detach().numpy().copy())
    return record_networks.forward(name, weights, x)

  attack = attacker(net, name, norm, n_iter=steps)
  attack.target_class = 2
  noise = torch.tensor(noise).double().permute(0, 3, 1, 2).contiguous()
  # Only what is classified well is attacked.
  right = net(image).argmax(1) == label
  rand, randn = torch.rand, torch.randn
  torch.rand = lambda _: (noise[right] / 127 + 1) / 2
  torch.randn = lambda _: noise[right]
  targeted = form == 'targeted'
  found = attack.attack_single_run(
    image, label, use_rand_start=not targeted, is_targeted=targeted
  )
  torch.rand, torch.randn = rand, randn
  nhwc = lambda x: np.moveaxis(x, -3, -1)
  kept = [i for i in KEPT if i < steps]
  return {
    'prints': prints(nhwc(np.stack(seen)[kept])),
    'best': prints(nhwc(found.numpy()[right])),
    'right': right.numpy(),
  }


def verdicts(norm):
  use(torch.float32)
  weights, image, label, _ = record_networks.load(np.float32)
  net = lambda x: record_networks.forward('cnn', weights, x)
  attack = attacker(
    net, 'cnn', norm, n_iter=100, targeted=True, n_target_classes=TARGETS
  )
  found = attack.perturb(image, label['cnn'])
  return (net(found).argmax(1) == label['cnn']).numpy()


def main():
  out = {}
  for name, norm, form, steps in CASES:
    key = f'{name}/{norm}/{form}'
    out |= {f'{key}/{k}': x for k, x in walk(name, norm, form, steps).items()}
    print(key)
  for norm in NORMS:
    out[f'{norm}/robust'] = verdicts(norm)
    print(norm, 'robust', out[f'{norm}/robust'].mean())
  np.savez_compressed(FILE, **out)


if __name__ == '__main__':
  main()
