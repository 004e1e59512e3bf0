"""Scores of a model: during training, at its end, and on request."""

from collections.abc import Callable
import functools
import math
import pathlib
import signal
from typing import Any

from absl import logging
from flax import linen as nn
import jax

from pinpp_jax import checkpoint, evals, inputs, recipe, sharding
from pinpp_jax.construct import Config, construct
from pinpp_jax.data.labels import write_json
from pinpp_jax.data.read.sources import Chosen, Source
from pinpp_jax.errors import UserError
from pinpp_jax.evals import samples
from pinpp_jax.report import page
from pinpp_jax.runs import rundir

Evaluators = dict[str, Callable[[Any, jax.Array], dict[str, float]]]


def run(config: Config, workdir: pathlib.Path) -> bool:
  """Scores a run's best weights again, or other weights in a new folder.

  A folder without `best/` takes the weights of `config.init`, and the network
  too where `config.model.name` is 'from_run'.

  SIGTERM ends the process at once. The same command resumes AutoAttack where
  it stopped and repeats the other evaluators.

  Returns:
    True: only an error ends it early.
  """
  # In a run of several processes JAX's handler would only record the signal.
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  with rundir.locked(workdir):
    rundir.log_to(workdir)
    config = recipe.of_run(config)
    finish(config, inputs.Inputs(config.data), workdir)
  return True


def finish(config: Config, data: inputs.Inputs, workdir: pathlib.Path) -> None:
  """Scores the final splits with the best weights.

  Process 0 writes `protocol.json` (which images, with which preprocessing),
  `scores.json`, `samples.npz` and `report.html`.
  """
  mesh = sharding.mesh()
  put = functools.partial(sharding.put, mesh=mesh)
  key = jax.random.key(config.seed)
  first = config.final_splits[0]
  source = data.split(first)
  model = recipe.model(config, source.labels)
  if (workdir / 'best').is_dir():
    variables = checkpoint.load_best(workdir, sharding.replicated(mesh))
    weights = "the run's best averaged (EMA) weights"
  else:
    variables = recipe.initial_variables(config, model, source.labels, mesh)
    weights = (
      f'the weights of {config.init.path}'
      if config.init.path
      else 'untrained weights'
    )
  # Only once there are weights: a mistyped path must not claim a folder.
  rundir.claim(workdir, config, source)
  writes = jax.process_index() == 0
  if writes:
    protocol = {s: data.protocol(s) for s in config.final_splits}
    write_json(workdir / 'protocol.json', protocol)
  found = {}
  for split in config.final_splits:
    made = evaluators(config, data, split, model, put, workdir)
    found |= scores(made, variables, key)
  if writes:
    write_json(workdir / 'scores.json', found)
  shown = samples.samples(
    variables,
    key,
    number=config.report_samples,
    model=model,
    batches=functools.partial(
      data.batches,
      first,
      spread(source, config.report_samples),
    ),
    put=put,
    labels=source.labels,
  )
  for name in config.headlines:
    if name in found:
      logging.info('%-36s %.4f', name, found[name])
  if writes:
    samples.save(workdir / 'samples.npz', shown)
    logging.info('Report: %s', page.write(workdir, weights=weights))


def spread(source: Source, number: int) -> Chosen:
  """Returns at most `number` examples, evenly spaced over a source."""
  number = min(number, len(source))
  return Chosen(source, [i * len(source) // number for i in range(number)])


def evaluators(
  config: Config,
  data: inputs.Inputs,
  split: str,
  model: nn.Module,
  put: Callable[[Any], Any],
  workdir: pathlib.Path | None = None,
) -> Evaluators:
  """Returns the evaluators of `config.evals` on one split, by name.

  An evaluator that keeps files writes them to `<workdir>/evals/<split>/<name>`.
  Without a `workdir` it keeps none, as during training, whose weights change.
  """
  sharding.check_batch_size('data.eval_batch_size', config.data.eval_batch_size)
  source = data.split(split)

  def batches(split: str = split):
    return data.batches(split)

  made = {}
  for name, section in config.evals.items():
    made[f'{split}/{name}'] = construct(
      evals.EVALS,
      section,
      model=model,
      batches=batches,
      put=put,
      labels=source.labels,
      examples=len(source),
      folder=workdir / 'evals' / split / name if workdir else None,
      about=data.protocol(split),
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
  """Returns the score that decides which weights are kept.

  Raises:
    UserError: If there is no such score.
  """
  if name not in found:
    raise UserError(f'best={name!r} is not one of the scores {sorted(found)}.')
  return found[name]
