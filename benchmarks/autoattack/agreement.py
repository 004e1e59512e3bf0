"""Whole evaluations of PyTorch's AutoAttack and of ours, seed against seed.

  pip install -e '.[dev,torch]'
  python -m benchmarks.autoattack.agreement
  python -m benchmarks.autoattack.agreement --quick

The standard version, each side with its own random numbers, on the two small
networks of the attacks' tests (adversarially trained, 16 x 16 pixels, ten
classes) and images of the training distribution. It counts images that are
robust on one side only: between two seeds of PyTorch, which shows the effect of
chance, and between PyTorch and ours.
"""

import argparse
from collections.abc import Callable, Sequence
import itertools
import json
import pathlib
from typing import Any

import jax
import numpy as np
import pyautoattack
import torch

from pinpp_jax.evals.autoattack import autoattack
from pinpp_jax.tools.compare import pair
from tests.attacks import record_networks
from tests.attacks.conftest import Recorded

NORMS: Any = {'linf': 'Linf', 'l2': 'L2', 'l1': 'L1'}
# About half of the images are broken.
EPS = {
  'cnn': {'linf': 0.045, 'l2': 0.8, 'l1': 6.0},
  'resnet': {'linf': 0.033, 'l2': 0.55, 'l1': 4.5},
}
CASES = [(net, norm) for net in ('cnn', 'resnet') for norm in NORMS]


def draw_images(number: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns new images (N, 16, 16, 3) in [0, 1] and their labels."""
  rng = np.random.default_rng(0)
  shape = (record_networks.CLASSES, 3, 4, 4)
  prototypes = torch.tensor(rng.normal(size=shape)).float()
  rng = np.random.default_rng(1)
  image, label = record_networks.sample(rng, prototypes, number)
  return image.permute(0, 2, 3, 1).numpy(), label.numpy()


def theirs(net: str, norm: str, image, label, seed: int) -> np.ndarray:
  """Returns (N,) bool, robust to PyTorch's AutoAttack."""
  weights = record_networks.load(dtype=np.float32)[0]
  forward = lambda x: record_networks.forward(net, weights, x)
  x = torch.tensor(image).permute(0, 3, 1, 2).contiguous()
  attack = pyautoattack.AutoAttack(
    _Module(forward), norm=NORMS[norm], eps=EPS[net][norm], seed=seed
  )
  target = torch.tensor(label)
  found, _ = attack.run_standard_evaluation(x, target, batch_size=len(label))
  with torch.no_grad():
    return (forward(found).argmax(1) == target).numpy()


class _Module(torch.nn.Module):
  """A function as a module."""

  def __init__(self, forward: Callable[..., Any]):
    super().__init__()
    self._function = forward

  def forward(self, x):
    """Returns logits."""
    return self._function(x)


def ours(net: str, norm: str, image, label, seed: int) -> np.ndarray:
  """Returns (N,) bool, robust to ours."""
  return autoattack(
    Recorded().network(net),
    image,
    label,
    norm=norm,
    eps=EPS[net][norm],
    key=jax.random.key(seed),
    log=lambda line: None,
  ).robust


def compare(net: str, norm: str, seeds: int, images: int) -> dict[str, Any]:
  """Returns one row of the table: accuracies and images that differ."""
  data = draw_images(images)
  torch_flags = [theirs(net, norm, *data, seed) for seed in range(seeds)]
  our_flags = [ours(net, norm, *data, seed) for seed in range(seeds)]
  differ = lambda pairs: [int((a != b).sum()) for a, b in pairs]
  text = lambda flags: ''.join('01'[int(flag)] for flag in flags)
  across = list(itertools.product(torch_flags, our_flags))
  return {
    'network': net,
    'norm': norm,
    'torch': [float(flags.mean()) for flags in torch_flags],
    'ours': [float(flags.mean()) for flags in our_flags],
    'torch_torch': differ(itertools.combinations(torch_flags, 2)),
    'ours_ours': differ(itertools.combinations(our_flags, 2)),
    'torch_ours': differ(across),
    'least_p': min(pair(text(a), text(b)).p_value for a, b in across),
  }


def line(row: dict[str, Any], images: int) -> str:
  """Returns a row of the table as text."""
  percent = lambda values: ' '.join(f'{100 * v:5.2f} %' for v in values)
  spread = lambda values: ' '.join(map(str, values)) or '-'
  gap = np.mean(row['ours']) - np.mean(row['torch'])
  agree = 1 - np.mean(row['torch_ours']) / images
  return (
    f'{row["network"]:7} {row["norm"]:5} {percent(row["torch"])} |'
    f' {percent(row["ours"])} | {100 * gap:+.2f} % |'
    f' {spread(row["torch_torch"])} |'
    f' {spread(row["ours_ours"])} | {spread(row["torch_ours"])} |'
    f' {100 * agree:.2f} % | {row["least_p"]:.2f}'
  )


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints one row for each network and norm."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--images', type=int, default=150)
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--json', type=pathlib.Path, help='file for the numbers')
  parser.add_argument('--quick', action='store_true', help='one small row')
  options = parser.parse_args(arguments)
  cases = CASES
  if options.quick:
    cases, options.images, options.seeds = CASES[:1], 4, 1
  print(
    f'{options.images} images. network, norm, torch by seed | ours by seed |'
    ' difference of means | images that differ: torch-torch | ours-ours |'
    " torch-ours | agreement | smallest p of McNemar's test"
  )
  # The networks are too small for more threads.
  torch.set_num_threads(1)
  rows = []
  for net, norm in cases:
    rows.append(compare(net, norm, options.seeds, options.images))
    print(line(rows[-1], options.images), flush=True)
    if options.json:
      partial = options.json.with_name(options.json.name + '.partial')
      partial.write_text(json.dumps(rows, indent=1) + '\n')
      partial.replace(options.json)


if __name__ == '__main__':
  main()
