"""Records APGD with averaged gradients, for test_apgd_rand.py.

Run once, after record_networks.py and record_apgd.py, with pyautoattack 0.2.0
and torch 2.13 on a CPU, never by a test:

  pip install --no-deps --target /tmp/aa pyautoattack==0.2.0
  PYTHONPATH=/tmp/aa python -m tests.attacks.record_rand

The code runs unchanged, in float64. The random network is the perceptron with
noise added to its images: that of `noisy`, so that the other side can add the
same at the same call.
"""

import pathlib

import numpy as np
import torch

from tests.attacks import record_apgd
from tests.attacks.record_apgd import EPS
from tests.attacks.record_networks import prints, use

FILE = pathlib.Path(__file__).parent / 'golden' / 'rand.npz'
EOT, NOISE = 20, 0.03
CASES = [('linf', 'ce'), ('linf', 'dlr'), ('l2', 'ce'), ('l1', 'ce')]
CASES = [(*case, 'random') for case in CASES]
CASES += [('linf', 'ce', 'same'), ('l1', 'ce', 'same')]
# Iterates kept; the rules change at the checkpoints.
KEPT = [0, 1, 5, 22, 23, 57, 100]


def noisy(net, noise):
  """Returns a network that sees other images at every call.

  Noise of whole numbers, of each image its own, which goes round the images.
  """
  calls = 0

  def function(x):
    nonlocal calls
    shifted = torch.roll(noise, calls, 0)
    calls += 1
    return net(x + NOISE / 127 * shifted)

  return function


def main():
  use(torch.float64)
  with np.load(record_apgd.FILE) as file:
    stored = dict(file)
  net, image, label, begin = record_apgd.setting('mlp', stored, np.float64)
  noise = torch.tensor(stored['mlp/noise']).double()
  out = {}
  for norm, loss, form in CASES:
    called = noisy(net, noise) if form == 'random' else net
    given = called, image, label, begin
    seen, ends, best, adversarial = record_apgd.walk(
      'mlp', norm, loss, given, eot_iter=EOT
    )
    assert len(seen) % EOT == 0
    key = f'{norm}/{loss}/{form}'
    out |= {f'{key}/{k}': x for k, x in ends.items()}
    out[f'{key}/prints'] = prints(seen[::EOT][KEPT])
    out[f'{key}/best'] = prints(best)
    out[f'{key}/adversarial'] = prints(adversarial)
    print(key, EPS['mlp'][norm], 'robust', ends['robust'].mean())
  np.savez_compressed(FILE, **out)


if __name__ == '__main__':
  main()
