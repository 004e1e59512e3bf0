"""Training, evaluation and labelling of the smoke recipes: DATA_DIR FOLDER."""

import importlib
import pathlib
import sys

import jax

from pinpp_jax import main
from pinpp_jax.machine import host_memory

SHORT = {
  'optim.epochs': 1 / 6,
  'optim.warmup_epochs': 0.0,
  'eval_epochs': 1 / 6,
  'log_steps': 1,
  'checkpoint_steps': 2,
  'report_samples': 3,
}
AUTOATTACK = {
  'name': 'autoattack',
  'eps': 4 / 255,
  'version': 'custom',
  'attacks': {'apgd-ce': {'steps': 3}},
  'batch_size': 16,
}


def train(data_dir, recipe, **fields):
  """Returns the recipe of a few steps."""
  config = importlib.import_module(f'configs.{recipe}').get_config('smoke')
  config.update_from_flattened_dict(SHORT | fields)
  config.data.data_dir = str(data_dir)
  return config


def configs(data_dir, folder):
  """Returns every task's recipe, and its folder's name."""
  clean = train(data_dir, 'resnet')
  robust = train(
    data_dir,
    'mpm',
    **{'attack.steps': 1, 'best': 'validation/clean_accuracy'},
  )
  del robust.evals.pgd10, robust.evals.parts
  again = train(data_dir, 'resnet', run='evaluate')
  with again.unlocked():
    again.evals = {'autoattack': AUTOATTACK}
  label = importlib.import_module('configs.label').get_config('smoke')
  label.update(limit=8, shard_size=2, report_samples=3)
  label.data.data_dir = str(data_dir)
  label.output = str(folder / 'pseudo' / '1.0.0')
  return [
    (clean, 'clean'),
    (robust, 'robust'),
    (again, 'clean'),
    (label, 'label'),
  ]


def run(data_dir, folder):
  """Does all tasks below a folder."""
  for config, name in configs(data_dir, folder):
    assert main.RUNS[config.run](config, folder / name)


if __name__ == '__main__':
  jax.distributed.initialize()
  host_memory.keep()  # As main does.
  run(*map(pathlib.Path, sys.argv[1:]))
