"""Eight devices do the same whatever the number of processes they belong to."""

import json

import jax
import numpy as np
import processes
import pytest
import tasks

from pinpp_jax import checkpoint, inputs, metrics, recipe, sharding

# Processes, and the devices of each.
LAYOUTS = ((2, 4), (4, 2))
TRAINED = ('clean', 'robust')


@pytest.fixture(scope='session')
def alone(mini_data, shared):
  """What one process with eight devices makes."""
  return shared('alone', lambda folder: tasks.run(mini_data, folder))


@pytest.fixture(
  scope='session', params=LAYOUTS, ids=lambda layout: '{} x {}'.format(*layout)
)
def together(request, mini_data, shared):
  """What several processes make with eight devices."""
  count, devices = request.param

  def make(folder):
    processes.run(
      'tests/cluster/tasks.py',
      *(mini_data, folder),
      count=count,
      devices=devices,
    )

  return shared(f'together_{count}x{devices}', make)


def rows(folder):
  """The numbers of a run that do not measure time or memory."""
  kinds = ('train/loss', 'train/grad_norm', 'validation/')
  return [
    {k: v for k, v in row.items() if k.startswith(kinds)}
    for row in metrics.read(folder)
  ]


@pytest.fixture(scope='module')
def states(mini_data):
  """Returns a function from a run's folder to its last state, and its place."""
  fresh = {}

  def read(folder):
    name = folder.name
    config = dict(map(reversed, tasks.configs(mini_data, folder)[:2]))[name]
    source = inputs.Inputs(config.data).training
    if name not in fresh:
      model = recipe.model(config, source.labels)
      fixed = recipe.make(config, model, source.labels, 24)
      fresh[name] = recipe.initial_state(
        config, model, fixed.tx, source.labels, sharding.mesh()
      )
    batches = inputs.training_batches(config.data, source, config.seed)
    with checkpoint.Checkpoints(folder) as checkpoints:
      state = checkpoints.restore(fresh[name], batches)
    place = batches.get_state()
    batches.close()
    return jax.device_get(state), place

  return read


@pytest.mark.parametrize('name', TRAINED)
def test_losses_and_metrics(name, alone, together):
  one, several = rows(alone / name), rows(together / name)
  assert len(one) == 5 and 'validation/clean_accuracy' in one[-1]
  assert len(several) == len(one)
  for ours, theirs in zip(several, one, strict=True):
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize('name', TRAINED)
def test_checkpoints(name, alone, together, states):
  (one, place), (several, other) = states(alone / name), states(together / name)
  assert int(one.step) == int(several.step) == 4
  assert place == other == {'next_batch': 4}
  flat = jax.tree_util.tree_leaves_with_path
  for (path, x), (_, y) in zip(flat(one), flat(several), strict=True):
    np.testing.assert_allclose(
      y, x, rtol=1e-4, atol=1e-5, err_msg=jax.tree_util.keystr(path)
    )


def test_final_scores_and_autoattack(alone, together):
  scores = [
    json.loads((f / 'clean/scores.json').read_text()) for f in (alone, together)
  ]
  assert 'test/custom_linf_accuracy' in scores[0]
  assert scores[1] == pytest.approx(scores[0], rel=1e-5)
  results = [
    json.loads((f / 'clean/evals/test/autoattack/result.json').read_text())
    for f in (alone, together)
  ]
  assert results[0]['flags'] == results[1]['flags']
  assert '1' in results[0]['flags']['clean']


def test_pseudo_labels_are_the_same_bytes(alone, together):
  made = [
    {p.name: p.read_bytes() for p in (f / 'pseudo').rglob('*') if p.is_file()}
    for f in (alone, together)
  ]
  assert len(made[0]) > 4 and made[0] == made[1]
  scores = [f / 'label/quality.json' for f in (alone, together)]
  assert scores[0].read_bytes() == scores[1].read_bytes()


def test_process_0_alone_writes(alone, together):
  def files(folder):
    return sorted(
      'events' if 'tfevents' in path.name else str(path.relative_to(folder))
      for path in folder.glob('*/*')
      if path.is_file()
    )

  logs = [name for name in files(together) if 'log.' in name]
  assert 'clean/log.1.txt' in logs
  others = [name for name in files(together) if name not in logs]
  assert others == [name for name in files(alone) if 'log.' not in name]
