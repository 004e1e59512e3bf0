"""Records how AutoAttack's APGD walks, for test_apgd_walks.py.

Run once, after record_networks.py, with pyautoattack 0.2.0 and torch 2.13 on a
CPU, never by a test:

  pip install --no-deps --target /tmp/aa pyautoattack==0.2.0
  PYTHONPATH=/tmp/aa python -m tests.attacks.record_apgd

The code runs unchanged: what the network is called with are the iterates. It
runs in float64, where `Tensor.float` returns doubles, as it is, and as it is
but for the count of `only_real_changes`.
"""

import contextlib
import pathlib

import numpy as np
from pyautoattack import autopgd_base
import torch

from tests.attacks import record_networks
from tests.attacks.record_networks import prints, use

FILE = pathlib.Path(__file__).parent / 'golden' / 'apgd.npz'
NORMS = {'linf': 'Linf', 'l2': 'L2', 'l1': 'L1'}
LOSSES = {'ce': 'ce', 'dlr': 'dlr', 'targeted_dlr': 'dlr-targeted'}
# About half of the images fall; of those of the perceptron nearly all.
EPS = {
  'cnn': {'linf': 0.045, 'l2': 0.8, 'l1': 6.0},
  'resnet': {'linf': 0.033, 'l2': 0.55, 'l1': 4.5},
  'mlp': {'linf': 0.05, 'l2': 0.3, 'l1': 1.2},
  'large': {'linf': 0.00035},  # not trained against attacks
}
SOME = [('linf', 'dlr'), ('l2', 'targeted_dlr'), ('l1', 'ce')]
ALL = [(norm, loss) for norm in NORMS for loss in LOSSES]
CASES = {'cnn': ALL, 'resnet': SOME, 'mlp': ALL}
STEPS = 100
# Smaller changes of a pixel are no step's.
ROUNDING = 1e-6
# Iterates kept, by number of call; the rules change at the checkpoints.
KEPT = [0, 1, 2, 5, 15, 22, 23, 30, 42, 57, 63, 80, 94, 99, 100]
# Whole walks are kept of these images of the perceptron.
WHOLE = {
  ('l1', 'ce'): [53, 79, 3],
  ('l1', 'dlr'): [29, 15, 5],
  ('l2', 'dlr'): [0, 1, 71],
}
PERCEPTRON = {'images': 80, 'shape': (4, 4, 3), 'hidden': 24, 'classes': 6}


def perceptron(rng):
  """Returns the arrays of a small network without layers of images."""
  single = lambda x: np.asarray(x, np.float32)
  p = PERCEPTRON
  image = single(rng.random((p['images'], *p['shape'])))
  image[0, :2], image[1, :2] = 0, 1  # the box binds
  size = int(np.prod(p['shape']))
  first = single(rng.normal(size=(size, p['hidden'])) * 0.6)
  last = single(rng.normal(size=(p['hidden'], p['classes'])))
  label = (np.tanh((image - 0.5).reshape(-1, size) @ first) @ last).argmax(1)
  label[2] = (label[2] + 1) % p['classes']
  noise = single(np.round(rng.normal(size=image.shape) * 42).clip(-127, 127))
  return {
    'mlp/image': image, 'mlp/label': label, 'mlp/noise': noise.astype(np.int8),
    'mlp/first': first, 'mlp/last': last,
  }  # fmt: skip


@contextlib.contextmanager
def only_real_changes():
  """Lets AutoAttack's count of changed pixels leave out what rounding changed.

  It takes back a step in L1 as (x + step) - step, which in float32 may miss x
  by the last digit, and then counts the pixel as one that the attack needs.
  """
  count = autopgd_base.L0_norm
  autopgd_base.L0_norm = lambda x: (x.abs() > ROUNDING).flatten(1).sum(1)
  try:
    yield
  finally:
    autopgd_base.L0_norm = count


def setting(name, mlp, dtype):
  """Returns (network, image, label, starts) of what torch is given."""
  tensor = lambda x: torch.tensor(np.asarray(x, dtype))
  if name == 'mlp':
    image, noise = mlp['mlp/image'], mlp['mlp/noise'].astype(np.float32)
    first, last = tensor(mlp['mlp/first']), tensor(mlp['mlp/last'])
    net = lambda x: torch.tanh((x - 0.5).flatten(1) @ first) @ last
    begin = record_networks.starts(image, noise, EPS[name])
    begin = {k: tensor(x) for k, x in begin.items()}
    return net, tensor(image), torch.tensor(mlp['mlp/label']), begin
  weights, image, label, noise = record_networks.load(dtype)
  single = image.permute(0, 2, 3, 1).numpy().astype(np.float32)
  begin = record_networks.starts(single, noise, EPS[name])
  nchw = lambda x: tensor(x).permute(0, 3, 1, 2).contiguous()
  net = lambda x: record_networks.forward(name, weights, x)
  return net, image, label[name], {k: nchw(x) for k, x in begin.items()}


def walk(name, norm, loss, given, rank=2, **changes):
  """Returns what one round from the given start does, as NumPy arrays.

  (what the network is called with, the ends, the best iterates, the adversarial
  ones). A targeted loss pulls to the class that ranks so; `changes` are options
  of AutoAttack's APGD.
  """
  net, image, label, begin = given
  seen, eps = [], EPS[name][norm]

  def watched(x):
    seen.append(x.detach().numpy().copy())
    return net(x)

  options = {'n_iter': STEPS, 'norm': NORMS[norm], 'eps': eps, **changes}
  if loss == 'targeted_dlr':
    attack = autopgd_base.APGDAttack_targeted(watched, **options)
    attack.y_target = net(image).sort(dim=1)[1][:, -rank]
  else:
    attack = autopgd_base.APGDAttack(watched, loss=LOSSES[loss], **options)
  attack.init_hyperparam(image)
  if norm == 'l1':
    draw, torch.randn_like = torch.randn_like, lambda x: begin[norm] - x
    out = attack.decr_eps_pgd(
      image, label, [3 * eps, 2 * eps, eps], [30, 30, 40]
    )
    torch.randn_like = draw
  else:
    out = attack.attack_single_run(image, label, x_init=begin[norm])
  nhwc = lambda x: x if name == 'mlp' else np.moveaxis(x, -3, -1)
  best_x, robust, best_loss, adversarial = (x.detach().numpy() for x in out)
  ends = {'robust': robust, 'best_loss': best_loss}
  return nhwc(np.stack(seen)), ends, nhwc(best_x), nhwc(adversarial)


def main():
  out = perceptron(np.random.default_rng(0))
  for name, cases in CASES.items():
    for norm, loss in cases:
      key = f'{name}/{norm}/{loss}'
      use(torch.float64)
      given = setting(name, out, np.float64)
      seen, ends, best_x, adversarial = walk(name, norm, loss, given)
      out |= {f'{key}/{k}': x for k, x in ends.items()}
      out[f'{key}/prints'] = prints(seen[KEPT])
      out[f'{key}/best'] = prints(best_x)
      out[f'{key}/adversarial'] = prints(adversarial)
      if name == 'mlp' and (norm, loss) in WHOLE:
        out[f'{key}/whole'] = seen[:, WHOLE[norm, loss]]
      if name != 'mlp':
        use(torch.float32)
        given = setting(name, out, np.float32)
        ends = walk(name, norm, loss, given)[1]
        out |= {f'{key}/single/{k}': x for k, x in ends.items()}
        if norm == 'l1':
          with only_real_changes():
            out[f'{key}/counted'] = walk(name, norm, loss, given)[1]['robust']
      print(key, 'robust', out[f'{key}/robust'].mean(), ends['robust'].mean())
  np.savez_compressed(FILE, **out)


if __name__ == '__main__':
  main()
