"""Records AutoAttack at 224 pixels and 1,000 classes, for test_large.py.

Run once, with pyautoattack 0.2.0 and torch 2.13 on a CPU, never by a test:

  pip install --no-deps --target /tmp/aa pyautoattack==0.2.0
  PYTHONPATH=/tmp/aa python -m tests.attacks.record_large

The code runs unchanged, in float64, with fewer steps, on a network that is not
trained and has three layers. Targeted attacks pull to the class that ranks
tenth, the last of the standard version's nine targets.
"""

import pathlib

import numpy as np
from pyautoattack import fab_pt
import torch
from torch.nn import functional as F

from tests.attacks import record_apgd, record_square
from tests.attacks.record_networks import prints, use

FILE = pathlib.Path(__file__).parent / 'golden' / 'large.npz'
IMAGES, BLOCKS, CLASSES = 4, 14, 1000
EPS = record_apgd.EPS['large']['linf']
SQUARE_EPS = 0.01
STEPS, FAB_STEPS, RANK = 20, 10, 10
KEPT = [0, 1, 2, 4, 5, 10, 20]
# Kernels are HWIO; stored are whole numbers, of this size.
SHAPES = {'stem': (16, 16, 3, 6), 'conv': (3, 3, 6, 12), 'dense': (12, CLASSES)}
SCALE = {'stem': 0.003, 'conv': 0.01, 'dense': 0.1}


def draw():
  """Returns the arrays of network and images, 8 bits each."""
  rng = np.random.default_rng(3)
  normal = lambda shape: np.round(rng.normal(size=shape) * 40).clip(-127, 127)
  out = {k: normal(shape).astype(np.int8) for k, shape in SHAPES.items()}
  blocks = (IMAGES, BLOCKS, BLOCKS, 3)
  out['image'] = (normal(blocks) + 128).astype(np.uint8)
  out['noise'] = normal(blocks).astype(np.int8)
  return out


def full(x):
  """Returns blocks as images of 224 pixels, float32."""
  return x.repeat(16, 1).repeat(16, 2).astype(np.float32)


def network(stored):
  """Returns logits of NCHW images."""
  scaled = {k: SCALE[k] * torch.tensor(stored[k]).double() for k in SHAPES}
  kernel = {k: scaled[k].permute(3, 2, 0, 1) for k in ('stem', 'conv')}

  def net(x):
    x = F.silu(F.conv2d(2 * x - 1, kernel['stem'], stride=16))
    x = F.silu(F.conv2d(x, kernel['conv'], stride=2, padding=1))
    return x.mean((2, 3)) @ scaled['dense']

  return net


def project(net, image, label):
  """Returns FAB's walk towards one class's boundary, and the nearest point."""
  seen = []

  def watched(x):
    if x.requires_grad:
      seen.append(x.detach().numpy().copy())
    return net(x)

  attack = fab_pt.FABAttack_PT(
    watched, norm='Linf', eps=EPS, n_restarts=1, n_iter=FAB_STEPS, device='cpu'
  )
  attack.target_class = RANK
  best = attack.attack_single_run(
    image, label, use_rand_start=False, is_targeted=True
  )
  nhwc = lambda x: np.moveaxis(x, -3, -1)
  return {'prints': prints(nhwc(np.stack(seen))),
          'best': prints(nhwc(best.numpy()))}  # fmt: skip


def main():
  use(torch.float64)
  stored = draw()
  image = full(stored['image']) / np.float32(255)
  start = np.clip(image + np.float32(EPS / 127) * full(stored['noise']), 0, 1)
  nchw = lambda x: torch.tensor(x).double().permute(0, 3, 1, 2).contiguous()
  net, image, start = network(stored), nchw(image), nchw(start)
  ranking = net(image).sort(dim=1)[1].flip(1)[:, :RANK]
  label = ranking[:, 0]
  out = stored | {'ranking': ranking.numpy()}
  for loss in ('ce', 'targeted_dlr'):
    seen, ends, best, _ = record_apgd.walk(
      'large', 'linf', loss, (net, image, label, {'linf': start}), rank=RANK,
      n_iter=STEPS,
    )  # fmt: skip
    made = ends | {'prints': prints(seen[KEPT]), 'best': prints(best)}
    out |= {f'apgd/{loss}/{k}': x for k, x in made.items()}
    print(loss, 'robust', ends['robust'])
  out |= {f'fab/{k}': x for k, x in project(net, image, label).items()}
  made = record_square.record('linf', net, image, label, SQUARE_EPS)
  out |= {f'square/{k}': x for k, x in made.items()}
  np.savez_compressed(FILE, **out)


if __name__ == '__main__':
  main()
