"""The training loop."""

import contextlib
import functools
import pathlib

from absl import logging
import jax

from pinpp_jax import (
  checkpoint,
  evaluate,
  inputs,
  metrics,
  recipe,
  sharding,
  step,
)
from pinpp_jax.construct import Config
from pinpp_jax.machine import perf
from pinpp_jax.runs import faults, rundir


def run(config: Config, workdir: pathlib.Path) -> bool:
  """Trains for `config.optim.epochs`, resuming from `workdir` if it can.

  Returns:
    False if it was asked to stop before the end.
  """
  with (
    rundir.locked(workdir),
    faults.Preemption(together=True) as preempted,
  ):
    rundir.log_to(workdir)
    data = inputs.Inputs(config.data)
    if not train(config, data, workdir, preempted):
      return False
    if (workdir / 'scores.json').exists():
      logging.info(
        '%s is finished; --config.run=evaluate scores it again.', workdir
      )
    else:
      evaluate.finish(config, data, workdir)
  return True


def train(
  config: Config,
  data: inputs.Inputs,
  workdir: pathlib.Path,
  preempted: faults.Preemption,
) -> bool:
  """Takes all steps; returns False if it was asked to stop before the end."""
  mesh = sharding.mesh(config.fsdp)
  put = functools.partial(sharding.put, mesh=mesh)
  key = jax.random.key(config.seed)

  source = data.training
  rundir.claim(workdir, config, data.recorded('train'), data.pseudo_hash)
  total_steps = max(1, round(config.optim.epochs * data.steps_per_epoch))
  eval_steps = max(1, round(config.eval_epochs * data.steps_per_epoch))

  model = recipe.model(config, source.labels)
  fixed = recipe.make(config, model, source.labels, data.steps_per_epoch)
  evaluators = evaluate.evaluators(config, data, config.eval_split, model, put)
  state = recipe.initial_state(config, model, fixed.tx, source.labels, mesh)

  with (
    contextlib.closing(data.training_batches(config.seed, put)) as batches,
    checkpoint.Checkpoints(workdir) as checkpoints,
    checkpoint.Best(workdir) as best,
    faults.Stall(config.stall_minutes) as step_ended,
    perf.Meter(
      config.data.batch_size, config.profile, workdir / 'profile'
    ) as meter,
    contextlib.ExitStack() as stack,
  ):
    state = checkpoints.restore(state, batches)
    first = int(state.step) + 1
    if first > 1:
      logging.info('Resuming after step %d of %d.', first - 1, total_steps)
    write = stack.enter_context(metrics.Writer(workdir, first - 1))
    progress = metrics.Progress(
      total_steps, config.data.batch_size, step=first - 1
    )
    watch = faults.Watch(source, checkpoints)

    for i in range(first, total_steps + 1):
      with meter.step(i):
        batch = meter.wait(batches)
        state, values = step.train_step(state, batch, key, recipe=fixed)
        watch(i, batch['index'], values)
      step_ended()
      if i % config.log_steps == 0 or i == total_steps:
        logged = {f'train/{name}': value for name, value in values.items()}
        write(i, logged | meter.read())
        logging.info('%s', progress(i, float(values['loss'])))
      if i % eval_steps == 0 or i == total_steps:
        watch.wait()
        scores = evaluate.scores(evaluators, state.ema, key)
        write(i, scores)
        best.offer(i, evaluate.chosen(config.best, scores), state.ema)
      stop = preempted(i)
      if i % config.checkpoint_steps == 0 or i == total_steps or stop:
        watch.wait()
        checkpoints.save(i, state, batches)
      if stop and i < total_steps:
        logging.info(
          'Asked to stop: saved step %d; the same command resumes there.', i
        )
        return False
  return True
