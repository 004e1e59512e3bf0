"""The paper's question in miniature: do parts help a classifier?

  ./launch.sh mini                     (makes the data set and pseudo labels)
  python -m benchmarks.mini_paper --data_dir=data
  python -m benchmarks.mini_paper --quick

On the drawn data set, with equal steps and the same images, each with clean and
with adversarial training, over several seeds:

  class          the class alone
  human          + parts of the annotated images, less than a fifth
  pseudo         + parts of all images, annotated or from the segmenter
  truth          + true parts of all images: an oracle
  objects        as `pseudo`, with whole objects instead of parts
  level1, level2 as `pseudo`, at one and two scales instead of three

Scored on new images: of the training distribution, whose background mostly
agrees with the class ("fresh"), and with a background that always belongs to
another class ("misleading"). Every finished run is a line of --json; the same
command resumes with the missing runs.
"""

import argparse
from collections.abc import Iterator, Sequence
import dataclasses
import functools
import importlib
import itertools
import json
import os
import pathlib
import statistics
import tempfile
from typing import Any

import jax
from scipy import stats

from pinpp_jax import data, inputs, recipe, sharding, state, step
from pinpp_jax.data.mini import drawn_release
from pinpp_jax.data.read import sources
from pinpp_jax.evals.accuracy import Accuracy

# name -> (recipe, its options, supervision of the images not annotated)
CONDITIONS = {
  'class': ('resnet_at', '', 'class'),
  'human': ('mpm', 'human-', 'class'),
  'pseudo': ('mpm', '', 'pseudo'),
  'truth': ('mpm', '', 'truth'),
  'objects': ('mpm', 'object-', 'pseudo'),
  'level1': ('mpm', 'level1-', 'pseudo'),
  'level2': ('mpm', 'level2-', 'pseudo'),
}
SCORES = {
  'fresh/clean': 'clean',
  'fresh/pgd10': 'PGD-10',
  'misleading/clean': 'misleading background',
  'misleading/pgd10': 'the same, PGD-10',
}
FRESH = 40  # Images per class in each of the two sets that are scored.


@dataclasses.dataclass(frozen=True)
class WithTruth:
  """A source whose images get the true masks of the drawn release."""

  source: Any
  folder: pathlib.Path

  @property
  def labels(self) -> data.LabelTable:
    """The numbering of classes and parts."""
    return self.source.labels

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> data.Example:
    example = self.source[index]
    path = (self.folder / example['file_name']).with_suffix('.png')
    return data.Example(
      **(example | {'part_mask': path.read_bytes(), 'source': 'human'})
    )

  def file_name(self, index: int) -> str:
    """Returns the file name of the example at `index`."""
    return self.source.file_name(index)


def config_of(condition: str, robust: bool, options: argparse.Namespace) -> Any:
  """Returns the recipe of a condition."""
  name, words, _ = CONDITIONS[condition]
  module = importlib.import_module(f'configs.{name}')
  config = module.get_config(f'{words}mini')
  if not robust:
    config.attack = dict(name='none')
    config.optim.min_learning_rate = 1e-3  # As the clean recipes have it.
  config.data.update(
    data_dir=options.data_dir,
    image_size=options.image_size,
    batch_size=options.batch_size,
    eval_batch_size=options.batch_size,
  )
  config.model.update(depth=options.depth, width=options.width)
  config.optim.epochs = options.epochs
  return config


def training_source(condition: str, config: Any) -> data.Source:
  """Returns the annotated images, and the others with their supervision."""
  annotated = inputs.Inputs(config.data).recorded('train')
  release = _release(config.data.data_dir)
  others = data.ImageNet(
    path=str(release / 'imagenet'),
    exclude=(config.data.name,),
    data_dir=config.data.data_dir,
    labels=annotated.labels,
  )
  known = CONDITIONS[condition][2]
  if known == 'truth':
    others = WithTruth(others, release / 'truth')
  elif known == 'pseudo':
    others = data.Recorded(
      dataset=config.data.pseudo,
      data_dir=config.data.data_dir,
      split='train',
      labels=annotated.labels,
    )
  return data.Concatenated((annotated, others))


def scored_sources(
  data_dir: str, labels: data.LabelTable
) -> dict[str, data.Source]:
  """Returns images of no data set, rendered on first use."""
  folder = _release(data_dir).with_name('pinpp_mini_fresh')
  if not folder.exists():
    drawn_release.render(
      folder, seed=1, annotated=1, unannotated=FRESH - 2, validation=FRESH
    )
  return {
    name: data.ImageNet(
      path=str(folder / 'imagenet'), split=split, labels=labels
    )
    for name, split in (('fresh', 'train'), ('misleading', 'validation'))
  }


def _release(data_dir: str) -> pathlib.Path:
  return sources.data_folder(data_dir) / 'downloads/manual/pinpp_mini'


class Condition:
  """One row of the table: compiled once, run with any seed."""

  def __init__(self, condition: str, robust: bool, options: argparse.Namespace):
    self._config = config = config_of(condition, robust, options)
    self._mesh = sharding.mesh()
    self._put = functools.partial(sharding.put, mesh=self._mesh)
    self._source = training_source(condition, config)
    labels = self._source.labels
    self._model = recipe.model(config, labels)
    per_epoch = inputs.steps_per_epoch(config.data, self._source)
    self._steps = max(1, round(config.optim.epochs * per_epoch))
    self._recipe = recipe.make(config, self._model, labels, per_epoch)
    self._create = jax.jit(
      lambda key: state.create(
        state.initial_variables(self._model, config.data.image_size, key),
        self._recipe.tx,
      ),
      out_shardings=sharding.replicated(self._mesh),
    )
    self._evaluators = dict(self._make_evaluators(labels, options))

  def __call__(self, seed: int) -> dict[str, float]:
    """Trains with a seed; returns the scores of the averaged weights."""
    trained = self._create(state.key(seed))
    key = jax.random.key(seed)
    batches = inputs.training_batches(self._config.data, self._source, seed)
    for batch in itertools.islice(batches, self._steps):
      placed = self._put(batch)
      trained, _ = step.train_step(trained, placed, key, recipe=self._recipe)
    batches.close()
    return {
      name: evaluator(trained.ema, jax.random.key(0))[f'{prefix}_accuracy']
      for (name, prefix), evaluator in self._evaluators.items()
    }

  def _make_evaluators(self, labels, options) -> Iterator[Any]:
    eps = 4 / 255
    pgd = dict(
      name='pgd', norm='linf', eps=eps, steps=10, step_size=eps / 4, best='last'
    )
    held = scored_sources(options.data_dir, labels)
    for name, attack in itertools.product(held, (None, pgd)):
      prefix = 'pgd10' if attack else 'clean'
      source = held[name]
      evaluator = Accuracy(
        attack=attack,
        prefix=prefix,
        limit=options.limit,
        model=self._model,
        batches=functools.partial(
          inputs.evaluation_batches,
          self._config.data,
          source,
          image_size=self._config.data.image_size,
          eval_resize=self._config.data.eval_resize,
        ),
        put=self._put,
        labels=labels,
        examples=len(source),
      )
      yield (f'{name}/{prefix}', prefix), evaluator


def interval(values: Sequence[float]) -> str:
  """Returns the mean and half the 95 % t interval over seeds, in percent."""
  mean = 100 * statistics.fmean(values)
  if len(values) < 2:
    return f'{mean:.1f}'
  spread = 100 * statistics.stdev(values) / len(values) ** 0.5
  return f'{mean:.1f} ± {spread * stats.t.ppf(0.975, len(values) - 1):.1f}'


def table(runs: Sequence[dict[str, Any]]) -> str:
  """Returns a table of scores, and of their differences to `class` by seed."""
  lines = []
  for robust in (False, True):
    title = 'adversarial training' if robust else 'clean training'
    lines += ['', f'| {title} | {" | ".join(SCORES.values())} |']
    lines += ['|---|' + '---:|' * len(SCORES)]
    mine = [run for run in runs if run['robust'] == robust]
    for difference in (False, True):
      for name in CONDITIONS:
        found = {r['seed']: r for r in mine if r['condition'] == name}
        base = {r['seed']: r for r in mine if r['condition'] == 'class'}
        seeds = sorted(found.keys() & base.keys() if difference else found)
        if not seeds or (difference and name == 'class'):
          continue
        cells = [
          interval(
            [
              found[s][score] - (base[s][score] if difference else 0)
              for s in seeds
            ]
          )
          for score in SCORES
        ]
        shown = f'{name} minus class' if difference else name
        lines.append(f'| {shown} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def main() -> None:
  """Makes the missing runs and prints the table."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--data_dir', default='')
  parser.add_argument('--json', default='mini_paper.jsonl')
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--epochs', type=float, default=16.0)
  parser.add_argument('--image_size', type=int, default=96)
  parser.add_argument('--batch_size', type=int, default=64)
  parser.add_argument('--depth', type=int, default=10)
  parser.add_argument('--width', type=int, default=16)
  parser.add_argument('--limit', type=int, default=None, help='images scored')
  parser.add_argument('--conditions', nargs='+', default=list(CONDITIONS))
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as scratch:
    if options.quick:
      options.json = os.path.join(scratch, 'runs.jsonl')
      options.conditions, options.seeds, options.limit = (
        ['class', 'truth'],
        2,
        8,
      )
      options.image_size, options.batch_size, options.width = 32, 8, 8
      options.epochs = 0.02
    run(options)


def run(options: argparse.Namespace) -> None:
  """Makes the runs that the file lacks, appending a line for each."""
  path = pathlib.Path(options.json)
  settings = {
    name: getattr(options, name)
    for name in (
      'epochs', 'image_size', 'batch_size', 'depth', 'width', 'limit'
    )
  }  # fmt: skip
  lines = path.read_text().splitlines() if path.exists() else []
  runs = [r for r in map(json.loads, lines) if r['settings'] == settings]
  done = {(r['condition'], r['robust'], r['seed']) for r in runs}
  rows = [
    (name, robust) for robust in (False, True) for name in options.conditions
  ]
  for name, robust in rows:
    missing = [s for s in range(options.seeds) if (name, robust, s) not in done]
    if not missing:
      continue
    condition = Condition(name, robust, options)
    for seed in missing:
      found = condition(seed)
      row = {'condition': name, 'robust': robust, 'seed': seed}
      runs.append(row | found | {'settings': settings})
      with open(path, 'a') as file:
        file.write(json.dumps(runs[-1]) + '\n')
      shown = ' '.join(f'{k} {v:.3f}' for k, v in found.items())
      print(f'{name} {"robust" if robust else "clean"} seed {seed}: {shown}')
  print(table(runs))


if __name__ == '__main__':
  main()
