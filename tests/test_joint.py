"""Joint supervision: drawn, predicted and no masks in one training run."""

import collections
import importlib

import pytest
import runs

from pinpp_jax import inputs, label, train
from pinpp_jax.errors import UserError
from pinpp_jax.runs import rundir

# One worker of xdist runs them all: they share a set of labels.


def config(name, data_dir):
  found = importlib.import_module(f'configs.{name}').get_config('smoke')
  found.data.data_dir = str(data_dir)
  return found


@pytest.fixture(scope='session')
def pseudo_set(mini_data, shared):
  """Labels of the mini set's unannotated images, by an untrained segmenter."""

  def make(folder):
    recipe = config('label', mini_data)
    recipe.truth = ''
    recipe.output = str(folder / '1.0.0')
    # So that some images stay without a mask.
    recipe.limit = 20
    label.run(recipe, folder / 'label')

  return shared('joint_pseudo', make) / '1.0.0'


@pytest.fixture
def joint(mini_data, pseudo_set):
  recipe = config('mpm', mini_data)
  recipe.data.pseudo = str(pseudo_set)
  recipe.data.imagenet = 'downloads/manual/pinpp_mini/imagenet'
  return recipe


def test_every_training_image_is_there_once(joint, mini_data):
  source = inputs.Inputs(joint.data).training
  names = [source.file_name(i) for i in range(len(source))]
  assert len(set(names)) == len(names)
  copy = mini_data / 'downloads/manual/pinpp_mini/imagenet/train'
  held = set()
  for split in ('validation', 'test'):
    part = inputs.Inputs(joint.data).recorded(split)
    held |= {part.file_name(i) for i in range(len(part))}
  wanted = {f'{path.parent.name}/{path.name}' for path in copy.glob('*/*.JPEG')}
  assert set(names) == wanted - held and held
  kinds = collections.Counter(source[i]['source'] for i in range(len(source)))
  assert kinds['pseudo'] == 20
  assert kinds['human'] == len(inputs.Inputs(joint.data).recorded('train'))
  assert kinds['none'] == len(source) - kinds['pseudo'] - kinds['human'] > 0


def test_a_copy_with_nothing_left_is_no_mistake(joint, mini_data, tmp_path):
  recipe = config('label', mini_data)
  recipe.output, recipe.truth = str(tmp_path / '1.0.0'), ''
  label.run(recipe, tmp_path / 'run')
  joint.data.pseudo = recipe.output
  source = inputs.Inputs(joint.data).training
  kinds = {source[i]['source'] for i in range(len(source))}
  assert kinds == {'human', 'pseudo'}


@pytest.mark.slow
def test_an_interrupted_joint_run_ends_like_the_whole_run(joint, tmp_path):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  with runs.killed_copy(whole, parts):
    train.run(joint, whole)
  train.run(joint, parts)

  runs.assert_same(whole, parts)
  rows = runs.rows(whole)
  for who in ('human', 'pseudo'):
    losses = [
      row[f'train/part_loss_{who}']
      for row in rows
      if f'train/part_loss_{who}' in row
    ]
    assert max(losses) > 0


def test_a_run_does_not_go_on_with_other_pseudo_labels(
  joint, pseudo_set, tmp_path
):
  source = inputs.Inputs(joint.data).recorded('train')
  used = inputs.Inputs(joint.data).pseudo_hash
  rundir.claim(tmp_path, joint, source, used)
  # Scoring does not read them, and must not make the run forget.
  rundir.claim(tmp_path, joint, source)
  rundir.claim(tmp_path, joint, source, used)

  manifest = pseudo_set / 'manifest.json'
  before = manifest.read_text()
  try:
    manifest.write_text(before + ' ')
    with pytest.raises(UserError, match='started with other pseudo labels'):
      rundir.claim(
        tmp_path, joint, source, inputs.Inputs(joint.data).pseudo_hash
      )
  finally:
    manifest.write_text(before)


def test_a_missing_set_names_the_command_that_makes_it(joint):
  joint.data.pseudo = 'pinpp_pseudo'
  with pytest.raises(UserError, match='configs/label.py'):
    len(inputs.Inputs(joint.data).training)
