"""AutoAttack in PyTorch against ours, on the same weights and images.

  pip install -e '.[dev,torch]'
  python -m benchmarks.autoattack
  python -m benchmarks.autoattack --norms linf --images=64 --size=224 --depth=50
  python -m benchmarks.autoattack --quick

Each row is one attack, from the call of the ensemble to its result, including
the clean pass and checks of both sides. PyTorch's side is pyautoattack, whose
attack files are those of github.com/fra31/auto-attack. APGD-T and FAB-T try one
target class, Square makes a tenth of its queries; the sums weight them as in
the standard version. The radius is so small that most images stay robust, which
is the expensive case. `frozen` is PyTorch without gradients of the weights.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyautoattack
import torch

from benchmarks import timing
from benchmarks.torch_rival.resnet import ResNet
from pinpp_jax import models
from pinpp_jax.evals.autoattack import autoattack
from pinpp_jax.models.torch import exporter

NORMS: Any = {'linf': 'Linf', 'l2': 'L2', 'l1': 'L1'}
EPS = {'linf': 1e-4, 'l2': 5e-3, 'l1': 0.1}
CLASSES = 10
QUERIES = 5000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """An attack, and its weight in the standard version.

  Attributes:
    ours: Options of our attack.
    weight: By norm, how many such pieces the standard version has.
  """

  ours: dict[str, Any]
  weight: dict[str, float]


def rows(steps: int, queries: int) -> dict[str, Row]:
  """Returns the attacks of the standard version in timed pieces."""
  each = lambda linf, l1: {'linf': linf, 'l2': linf, 'l1': l1}
  return {
    'apgd-ce': Row(ours=dict(steps=steps), weight=each(1, 5)),
    'apgd-t': Row(ours=dict(steps=steps, target_classes=1), weight=each(9, 5)),
    'fab-t': Row(ours=dict(steps=steps, target_classes=1), weight=each(9, 9)),
    'square': Row(
      ours=dict(queries=queries), weight=each(*[QUERIES / queries] * 2)
    ),
  }


class Race:
  """One network in both libraries, and images that it classifies right."""

  def __init__(self, options: argparse.Namespace):
    self.options = options
    self.steps, self.queries = options.steps, options.queries
    model = models.ResNet(
      num_classes=CLASSES,
      num_parts=0,
      depth=options.depth,
      width=options.width,
    )
    rng = np.random.default_rng(0)
    shape = (options.images, options.size, options.size, 3)
    self.images = rng.random(shape, np.float32)
    self.variables = _random_variables(model, self.images[:1])
    self.predict = jax.tree_util.Partial(_Logits(model), self.variables)
    logits = np.asarray(jax.jit(self.predict)(self.images))
    self.labels = logits.argmax(-1)
    self.torch_network = self._in_torch(model)
    x = torch.tensor(self.images).permute(0, 3, 1, 2).contiguous()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    self.device = torch.device(device)
    self.torch_network.to(self.device)
    self.torch_images = x.to(self.device)
    self.torch_labels = torch.tensor(self.labels).to(self.device)
    with torch.no_grad():
      theirs = self.torch_network(self.torch_images).cpu().numpy()
    self.apart = float(np.abs(theirs - logits).max())
    scale = float(np.abs(logits).max())
    if self.apart > 1e-4 * max(1.0, scale):
      raise SystemExit(
        f'The logits of the two networks differ by {self.apart:g}: not timed.'
      )

  def _in_torch(self, model):
    network = ResNet(self.options.depth, self.options.width, CLASSES)
    tensors = exporter.tensors(model, self.variables)
    network.load_state_dict(
      {k: torch.tensor(np.array(v)) for k, v in tensors.items()}, strict=False
    )
    return network.eval()

  def ours(self, norm: str, name: str, row: Row) -> int:
    """Runs one attack of ours; returns the number of robust images."""
    outcome = autoattack(
      self.predict,
      self.images,
      self.labels,
      norm=norm,
      eps=EPS[norm],
      version='custom',
      attacks={name: row.ours},
      batch_size=self.options.batch,
      log=lambda line: None,
    )
    return int(outcome.robust.sum())

  def theirs(self, norm: str, name: str, frozen: bool) -> int:
    """Runs one attack of PyTorch's AutoAttack; returns the same number."""
    for parameter in self.torch_network.parameters():
      parameter.requires_grad_(not frozen)
    attack = pyautoattack.AutoAttack(
      self.torch_network,
      norm=NORMS[norm],
      eps=EPS[norm],
      version='custom',
      attacks=_only(name),
      device=self.device,
    )
    attack.apgd.n_restarts = attack.apgd_targeted.n_restarts = 1
    for part in (attack.apgd, attack.apgd_targeted, attack.fab):
      part.n_iter = self.steps
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = 1
    attack.apgd.use_largereps = attack.apgd_targeted.use_largereps = (
      norm == 'l1'
    )
    attack.square.n_queries = self.queries
    found, _ = attack.run_standard_evaluation(
      self.torch_images, self.torch_labels, batch_size=self.options.batch
    )
    with torch.no_grad():
      best = self.torch_network(found).argmax(1)
    return int((best == self.torch_labels).sum())


def _only(name: str) -> Any:
  return [name]


class _Logits:
  """A module's logits; a hashable object, so that nothing recompiles."""

  def __init__(self, model: Any):
    self._model = model

  def __call__(self, variables, image):
    """Returns float32 logits (B, K)."""
    return self._model.apply(variables, image, train=False)['logits']


def _random_variables(model: Any, image: np.ndarray) -> Any:
  """Returns weights without the zero scales that training starts from."""
  variables = model.init(jax.random.key(0), image, train=False, parts=True)
  leaves, tree = jax.tree.flatten(variables)
  rng = np.random.default_rng(0)
  draw = lambda x: jnp.where(x == 0, 0.5 * rng.random(x.shape), x)
  return jax.tree.unflatten(
    tree, [draw(x).astype(jnp.float32) if x.ndim == 1 else x for x in leaves]
  )


def measure(race: Race, norm: str, rounds: int) -> dict[str, Any]:
  """Returns seconds of every contestant and attack under a norm."""
  found: dict[str, Any] = {}
  for name, row in rows(race.steps, race.queries).items():
    contestants = {
      'torch': lambda name=name: race.theirs(norm, name, False),
      'frozen': lambda name=name: race.theirs(norm, name, True),
      'ours': lambda name=name, row=row: race.ours(norm, name, row),
    }
    survivors = {k: call() for k, call in contestants.items()}
    seconds = timing.interleaved(contestants, rounds)
    found[name] = {
      'seconds': seconds,
      'survivors': survivors,
      'weight': row.weight[norm],
    }
    _print_row(name, found[name])
  _print_sum(norm, found, rounds)
  return found


def _print_row(name: str, row: dict[str, Any]) -> None:
  seconds = row['seconds']
  cells = [f'{statistics.median(v):9.2f} s' for v in seconds.values()]
  ratios = [timing.ratio(seconds[k], seconds['ours']) for k in seconds]
  print(
    f'{name:10}', *cells, f'{ratios[0]:8.2f} x', f'{ratios[1]:8.2f} x',
    '  left:', *row['survivors'].values(), flush=True,
  )  # fmt: skip


def _print_sum(norm: str, found: dict[str, Any], rounds: int) -> None:
  """Prints the standard version's time: the weighted sum of the pieces."""
  total: dict[str, list[float]] = {
    name: [
      sum(row['weight'] * row['seconds'][name][i] for row in found.values())
      for i in range(rounds)
    ]
    for name in ('torch', 'frozen', 'ours')
  }
  cells = [f'{statistics.median(v):9.2f} s' for v in total.values()]
  ratios = [timing.ratio(total[k], total['ours']) for k in ('torch', 'frozen')]
  print(
    f'{"standard":10}', *cells, *[f'{ratio:8.2f} x' for ratio in ratios],
    f'  ({norm})\n', flush=True,
  )  # fmt: skip


def main() -> None:
  """Prints one table per norm."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--norms', nargs='+', default=[*NORMS], choices=NORMS)
  parser.add_argument('--images', type=int, default=32)
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--size', type=int, default=32)
  parser.add_argument('--depth', type=int, default=10, choices=(10, 18, 34))
  parser.add_argument('--width', type=int, default=16)
  parser.add_argument('--steps', type=int, default=100)
  parser.add_argument('--queries', type=int, default=QUERIES // 10)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--json', type=pathlib.Path, help='file for the numbers')
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  if options.quick:
    options.images = options.batch = options.width = 4
    options.steps, options.queries, options.rounds = 5, 10, 1
    options.size, options.norms = 16, options.norms[:1]
  race = Race(options)
  print(
    f'ResNet-{options.depth}, width {options.width}, {options.images} images of'
    f' {options.size} px, batch {options.batch}, float32;'
    f' {jax.devices()[0].device_kind}, {torch.get_num_threads()} threads of'
    f' PyTorch on {race.device}; logits differ by {race.apart:.1e}'
  )
  print(
    f'{"":10}{"torch":>12}{"frozen":>12}{"ours":>12}   torch/ours frozen/ours'
  )
  found = {norm: measure(race, norm, options.rounds) for norm in options.norms}
  if options.json:
    partial = options.json.with_name(options.json.name + '.partial')
    partial.write_text(json.dumps(found, indent=1) + '\n')
    partial.replace(options.json)


if __name__ == '__main__':
  main()
