"""Scores of a model: during training, at its end, and on request."""

from collections.abc import Callable
import functools
import math
import pathlib
from typing import Any

from absl import logging
from flax import linen as nn
import jax
import ml_collections

from pinpp_jax import checkpoint, evals, inputs, recipe, rundir, sharding
from pinpp_jax.construct import construct
from pinpp_jax.errors import UserError

Evaluators = dict[str, Callable[[Any, jax.Array], dict[str, float]]]


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Scores the final splits again.

  The weights are those of `config.init` if it names any, else the run's best.
  """
  with rundir.locked(workdir):
    rundir.log_to(workdir)
    finish(config, workdir)


def finish(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Scores the final splits with the best weights; writes `scores.json`."""
  mesh = sharding.mesh()
  sharding.check_batch_size('data.eval_batch_size', config.data.eval_batch_size)
  put = functools.partial(sharding.put, mesh=mesh)
  key = jax.random.key(config.seed)
  labels = inputs.labels(config.data)
  rundir.claim(workdir, config, labels)
  model = recipe.model(config, labels)
  if config.run == 'evaluate' and config.init.path:
    variables = recipe.initial_variables(config, model, labels, mesh)
  else:
    variables = checkpoint.load_best(workdir, sharding.replicated(mesh))
  found = {}
  for split in config.final_splits:
    found |= scores(evaluators(config, split, model, put), variables, key)
  rundir.write_json(workdir / 'scores.json', found)
  for name, value in sorted(found.items()):
    logging.info('%-40s %.4f', name, value)


def evaluators(
    config: ml_collections.ConfigDict,
    split: str,
    model: nn.Module,
    put: Callable[[Any], Any],
) -> Evaluators:
  """Returns the evaluators of `config.evals` on one split, by name."""
  sharding.check_batch_size('data.eval_batch_size', config.data.eval_batch_size)
  source = inputs.split_source(config.data, split)
  made = {}
  for name, section in config.evals.items():
    made[f'{split}/{name}'] = construct(
        evals.EVALS,
        section,
        model=model,
        batches=functools.partial(inputs.evaluation, config.data, source),
        put=put,
        labels=source.labels,
    )
  return made


def scores(
    evaluators: Evaluators, variables: Any, key: jax.Array
) -> dict[str, float]:
  """Returns `<split>/<score>` of all evaluators."""
  found = {}
  for name, evaluator in evaluators.items():
    split = name.split('/', 1)[0]
    for score, value in evaluator(variables, key).items():
      if not math.isnan(value):
        found[f'{split}/{score}'] = value
  return found


def chosen(name: str, found: dict[str, float]) -> float:
  """Returns the score that decides which weights are kept."""
  if name not in found:
    raise UserError(f'best={name!r} is not one of the scores {sorted(found)}.')
  return found[name]
