"""Networks of every origin, scored on images of a list or of a split."""

import importlib
import json
import pathlib

import jax
import numpy as np
from PIL import Image
import pytest

from pinpp_jax import checkpoint, evaluate, recipe, state
from pinpp_jax.data.labels import class_only
from pinpp_jax.data.read import sources
from pinpp_jax.errors import UserError
from pinpp_jax.models.torch import exporter, files

SIDE = 32
SPLIT = 'imagenet_list'
TINY = dict(depth=10, width=8, activation='gelu', dtype='float32')


def smoke(data_dir, **fields):
  config = importlib.import_module('configs.eval_robustness').get_config(
    'smoke'
  )
  config.data.data_dir = str(data_dir)
  del config.evals.autoattack  # It has tests of its own.
  config.report_samples = 3
  config.update_from_flattened_dict(fields)
  return config


@pytest.fixture(scope='module')
def listed(mini_data):
  """The names in a list of some images of some classes, in an odd order."""
  root = mini_data / 'downloads/manual/pinpp_mini/imagenet/val'
  names = [str(path.relative_to(root)) for path in sorted(root.glob('*/*'))]
  names = names[1:-3:2][::-1]
  (mini_data / 'some.txt').write_text('\n'.join(names) + '\n')
  return names


def on_list(data_dir, **fields):
  config = smoke(
    data_dir,
    **{
      'data.imagenet': 'downloads/manual/pinpp_mini/imagenet',
      'data.list.name': 'some',
      'data.list.path': 'some.txt',
      'data.list.preprocessing': 'res37crop32-bilinear',
    }
    | fields,
  )
  config.final_splits = (SPLIT,)
  return config


def run(config, workdir):
  evaluate.run(config, workdir)
  return json.loads((workdir / 'scores.json').read_text())


def loss(model, variables, data_dir, names, wnids):
  """The mean cross entropy over the images of a list, written out."""
  root = data_dir / 'downloads/manual/pinpp_mini/imagenet/val'
  pixels = []
  for name in names:
    with Image.open(root / name) as image:
      # Squares of 96: both sides become 37, and the border is 2.5 pixels.
      small = image.convert('RGB').resize((37, 37), Image.BILINEAR)
    pixels.append(np.asarray(small.crop((2, 2, 34, 34)), np.float32) / 255)
  apply = jax.jit(lambda v, x: model.apply(v, x, train=False)['logits'])
  log_p = jax.nn.log_softmax(apply(variables, np.stack(pixels)))
  labels = [sorted(wnids).index(name.split('/')[0]) for name in names]
  return float(-np.mean([log_p[i, label] for i, label in enumerate(labels)]))


def table(data_dir):
  return sources.Recorded(
    dataset='pinpp_mini', split='test', data_dir=str(data_dir)
  ).labels


def network(labels, **section):
  """A network of our tiny size and random weights for it."""
  config = smoke('')
  with config.unlocked():
    config.model = TINY | section
  model = recipe.model(config, labels)
  return model, state.initial_variables(model, SIDE, state.key(5))


@pytest.fixture(scope='module')
def trained(mini_data, tmp_path_factory):
  """The folder of an MPM's run, as far as it matters; model and weights."""
  folder = tmp_path_factory.mktemp('runs') / 'mpm'
  labels = table(mini_data)
  config = importlib.import_module('configs.mpm').get_config('smoke')
  model = recipe.model(config, labels)
  variables = state.initial_variables(model, SIDE, state.key(7))
  with checkpoint.Best(folder) as best:
    best.offer(7, 0.5, variables)
  labels.save(folder / 'labels.json')
  (folder / 'config.json').write_text(config.to_json_best_effort())
  return folder, model, variables


class TestList:
  def test_scores_are_of_the_listed_images(
    self, mini_data, listed, trained, tmp_path
  ):
    folder, model, variables = trained
    config = on_list(mini_data, **{'init.path': str(folder)})
    config.model = dict(name='from_run')
    scores = run(config, tmp_path)
    assert scores[f'{SPLIT}/clean_examples'] == len(listed)
    wnids = table(mini_data).wnids
    expected = loss(model, variables, mini_data, listed, wnids)
    assert scores[f'{SPLIT}/clean_loss'] == pytest.approx(expected, abs=1e-5)
    assert (tmp_path / 'report.html').exists()

  def test_the_protocol_names_list_and_preprocessing(
    self, mini_data, listed, tmp_path
  ):
    config = on_list(mini_data)
    config.final_splits = (SPLIT, 'test', 'imagenet_validation')
    run(config, tmp_path)
    said = json.loads((tmp_path / 'protocol.json').read_text())
    assert set(said) == set(config.final_splits)
    assert said[SPLIT]['list'] == 'some' and len(said[SPLIT]['sha256']) == 64
    assert said[SPLIT]['preprocessing'] == 'res37crop32-bilinear'
    assert said[SPLIT]['images'] == len(listed)
    assert said[SPLIT]['eval_resize'] == 1.0
    assert said['test']['split'] == 'test'
    assert said['test']['eval_resize'] == pytest.approx(256 / 224)
    env = json.loads((tmp_path / 'env.json').read_text())
    assert env['data']['list_hash'] == said[SPLIT]['list_hash']

  def test_crops_need_neither_copy_nor_data_set(
    self, mini_data, listed, trained, tmp_path
  ):
    folder, _, _ = trained
    fields = {'init.path': str(folder)}
    config = on_list(mini_data, **fields)
    config.model = dict(name='from_run')
    before = run(config, tmp_path / 'one')
    config = on_list(
      mini_data, **fields | {'data.name': '', 'data.imagenet': ''}
    )
    config.model = dict(name='from_run')
    assert run(config, tmp_path / 'two') == before

  def test_another_size_than_the_data_sets(self, mini_data, listed, tmp_path):
    preprocessing = {'data.list.preprocessing': 'crop64'}
    scores = run(on_list(mini_data, **preprocessing), tmp_path)
    assert scores[f'{SPLIT}/clean_examples'] == len(listed)

  def test_under_attack(self, mini_data, listed, tmp_path):
    config = on_list(mini_data)
    config.evals.pgd = dict(
      name='accuracy',
      prefix='pgd',
      attack=dict(
        name='pgd', norm='linf', eps=8 / 255, steps=2, step_size=4 / 255
      ),
    )
    scores = run(config, tmp_path)
    assert scores[f'{SPLIT}/pgd_loss'] > scores[f'{SPLIT}/clean_loss']


class TestOrigins:
  """Only classes are known of the images: the copy's, without a data set."""

  def config(self, data_dir, path, **section):
    # No test data set is built here: the fields say so.
    fields = {'data.name': '', 'init.path': str(path)}
    config = on_list(data_dir, **fields)
    with config.unlocked():
      config.model = section
    return config

  def test_a_resnet_from_a_file(self, mini_data, listed, tmp_path):
    wnids = table(mini_data).wnids
    model, variables = network(class_only(wnids), name='resnet')
    path = tmp_path / 'resnet.safetensors'
    files.write_file(path, model, variables)
    config = self.config(mini_data, path, name='resnet', **TINY)
    scores = run(config, tmp_path / 'run')
    expected = loss(model, variables, mini_data, listed, wnids)
    assert scores[f'{SPLIT}/clean_loss'] == pytest.approx(expected, abs=1e-5)

  def test_an_official_checkpoint(self, mini_data, listed, tmp_path):
    torch = pytest.importorskip('torch')
    labels = table(mini_data)
    model, variables = network(labels, name='mpm')
    as_torch = lambda tree: {
      f'module.{name}': torch.tensor(array)
      for name, array in exporter.tensors(model, tree).items()
    }
    path = tmp_path / 'checkpoint.pth'
    other = jax.tree.map(lambda x: x + 1, variables)
    torch.save(
      {
        'epoch': 79,
        'state_dict': as_torch(other),
        'state_dict_ema': as_torch(variables),
      },
      path,
    )
    section = dict(name='mpm', num_parts=labels.num_parts, **TINY)
    config = self.config(mini_data, path, **section)
    with pytest.raises(UserError, match='choose a state dict by its key'):
      run(config, tmp_path / 'run')
    config.init.key = 'state_dict_ema'
    scores = run(config, tmp_path / 'run')
    expected = loss(model, variables, mini_data, listed, labels.wnids)
    assert scores[f'{SPLIT}/clean_loss'] == pytest.approx(expected, abs=1e-5)

  def test_a_run_gives_its_network_and_its_numbering(self, mini_data, trained):
    folder, model, _ = trained
    config = self.config(mini_data, folder, name='from_run', dtype='bfloat16')
    found = recipe.of_run(config)
    assert found.model.name == 'mpm' and found.model.depth == model.depth
    assert found.model.dtype == 'bfloat16'
    assert found.data.labels == str(folder / 'labels.json')
    assert config.model.name == 'from_run'

  def test_a_run_on_the_test_split_it_did_not_see(
    self, mini_data, trained, tmp_path
  ):
    folder, _, _ = trained
    config = smoke(mini_data, **{'init.path': str(folder)})
    config.model = dict(name='from_run')
    scores = run(config, tmp_path)
    assert scores['test/clean_examples'] == 48
    resolved = json.loads((tmp_path / 'config.json').read_text())
    assert resolved['model']['name'] == 'mpm'

  def test_other_recipes_are_left_alone(self, mini_data):
    config = smoke(mini_data)
    assert recipe.of_run(config) is config


class TestMistakes:
  @pytest.mark.parametrize('path', ['', 'nowhere', __file__])
  def test_no_run_to_take_the_network_of(self, path, mini_data, tmp_path):
    config = smoke(mini_data, **{'init.path': path})
    config.model = dict(name='from_run')
    with pytest.raises(UserError, match='is not the folder of a run'):
      run(config, tmp_path)

  def test_a_folder_that_is_no_run(self, mini_data, tmp_path):
    config = smoke(mini_data, **{'init.path': str(tmp_path)})
    config.model = dict(name='from_run')
    with pytest.raises(UserError, match='it has no config.json'):
      run(config, tmp_path / 'run')

  def test_no_list(self, mini_data, tmp_path):
    config = on_list(mini_data, **{'data.list.path': ''})
    with pytest.raises(UserError, match='set data.list.name .one of .*rb5k'):
      run(config, tmp_path)

  def test_another_list(self, mini_data, listed, tmp_path):
    config = on_list(mini_data, **{'data.list.hash': '0' * 64})
    with pytest.raises(UserError, match='it is a different list'):
      run(config, tmp_path)

  def test_no_data_set(self, mini_data, tmp_path):
    config = smoke(mini_data, **{'data.name': ''})
    with pytest.raises(UserError, match='data.name is empty'):
      run(config, tmp_path)

  def test_no_copy(self, mini_data, listed, tmp_path):
    fields = {'data.imagenet': '', 'data.list.preprocessing': 'crop96'}
    with pytest.raises(UserError, match=r'set data\.imagenet'):
      run(on_list(mini_data, **fields), tmp_path)

  def test_a_data_set_that_is_numbered_differently(self, mini_data, tmp_path):
    class_only(['n00000001', 'n00000002']).save(tmp_path / 'labels.json')
    config = smoke(mini_data, **{'data.labels': str(tmp_path / 'labels.json')})
    with pytest.raises(UserError, match='numbers its classes and parts diff'):
      run(config, tmp_path / 'run')


def test_the_list_of_the_full_recipe_is_robustbenchs():
  config = importlib.import_module('configs.eval_robustness').get_config('full')
  assert config.data.list.name == 'rb5k'
  assert config.data.list.preprocessing == 'res256crop224-bilinear'
  assert config.evals.autoattack.version == 'standard'
  assert config.final_splits == (SPLIT,)
  # The list is the user's to bring.
  assert not list(pathlib.Path(__file__).parents[1].rglob('*image_ids.txt'))
