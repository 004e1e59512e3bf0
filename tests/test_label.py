"""Labelling as a user does it: real processes, really killed, and mistakes."""

import fcntl
import importlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import processes
import pytest
import tensorflow_datasets as tfds

from pinpp_jax import checkpoint, data, label, recipe, state
from pinpp_jax.data import labels as labels_lib
from pinpp_jax.data import masks
from pinpp_jax.data.read import pseudo, sources
from pinpp_jax.errors import UserError

# One worker of xdist runs them all: they share a set of labels.
ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL = {'shard_size': 4, 'report_samples': 3}


def smoke(data_dir, output, **fields):
  config = importlib.import_module('configs.label').get_config('smoke')
  config.data.data_dir = str(data_dir)
  config.output = str(output)
  config.update_from_flattened_dict(SMALL | fields)
  return config


@pytest.fixture(scope='module')
def trained(mini_data, tmp_path_factory):
  """The folder of a segmenter's run, as far as it matters."""
  folder = tmp_path_factory.mktemp('runs') / 'segmenter'
  config = importlib.import_module('configs.segmenter').get_config('smoke')
  source = sources.Recorded(
    dataset='pinpp_mini', split='train', data_dir=str(mini_data)
  )
  model = recipe.model(config, source.labels)
  variables = state.initial_variables(model, 32, state.key(3))
  with checkpoint.Best(folder) as best:
    best.offer(7, 0.5, variables)
  source.labels.save(folder / 'labels.json')
  (folder / 'config.json').write_text(config.to_json_best_effort())
  return folder


def start(data_dir, segmenter, folder, *more):
  """Starts labelling on one CPU device."""
  options = [f'--config.{name}={value}' for name, value in SMALL.items()]
  return subprocess.Popen(
    [
      sys.executable,
      '-m',
      'pinpp_jax.main',
      '--config=configs/label.py:smoke',
      f'--workdir={folder / "run"}',
      f'--config.data.data_dir={data_dir}',
      f'--config.output={folder / "pseudo" / "1.0.0"}',
      f'--config.segmenter={segmenter}',
      *options,
      *more,
    ],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process):
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  return output


def contents(folder):
  found = folder / 'pseudo' / '1.0.0'
  return {str(p.relative_to(found)): p.read_bytes() for p in found.rglob('*')}


@pytest.fixture(scope='module')
def whole(mini_data, trained, tmp_path_factory):
  """A set that nobody disturbed, by one process with one device."""
  folder = tmp_path_factory.mktemp('whole')
  finish(start(mini_data, trained, folder))
  return folder


class TestSet:
  def test_holds_every_image_that_is_not_annotated(self, whole, mini_data):
    table = sources.Recorded(
      dataset='pinpp_mini', split='test', data_dir=str(mini_data)
    ).labels
    made = data.Recorded(
      dataset=str(whole / 'pseudo/1.0.0'), split='train', labels=table
    )
    manual = mini_data / 'downloads/manual/pinpp_mini'
    known = sources.file_names('pinpp_mini', str(mini_data))
    copy = manual / 'imagenet/train'
    wanted = {
      name
      for path in copy.glob('*/*')
      if (name := str(path.relative_to(copy))) not in known
    }
    assert [made.file_name(i) for i in range(len(made))] == sorted(wanted)
    for row in made:
      path = copy / row['file_name']
      assert row['image'] == path.read_bytes()
      assert row['source'] == 'pseudo'
      mask = masks.decode(row['part_mask'])
      with Image.open(path) as image:
        assert mask.shape == image.size[::-1]
      assert mask.max() <= table.part_counts[row['label']]

  def test_tfds_opens_it(self, whole):
    builder = tfds.builder_from_directory(whole / 'pseudo/1.0.0')
    rows = builder.as_data_source('train')
    assert rows[0]['part_mask'].shape == (96, 96, 1)

  def test_its_manifest_names_everything(self, whole):
    manifest = pseudo.read_manifest(whole / 'pseudo/1.0.0')
    segmenter = manifest['segmenter']
    assert (segmenter['run'], segmenter['step']) == ('segmenter', 7)
    assert len(segmenter['variables']) == 64
    assert segmenter['config']['model']['name'] == 'segmenter'
    assert manifest['labelling']['scales'] == [1.0]
    assert manifest['source']['images'] == 48
    assert [s['count'] for s in manifest['shards']] == [4] * 12
    assert manifest['skipped'] == []

  def test_its_quality_is_told(self, whole, mini_data):
    scores = json.loads((whole / 'run/quality.json').read_text())
    assert scores['test']['images'] == 48
    assert scores['truth']['images'] == 48
    assert sum(t['images'] for t in scores['truth']['deciles']) == 48
    page = (whole / 'run/report.html').read_text()
    assert page.count('data:image/jpeg') == 2 * 6 * 3 + 3 * 2
    assert 'src="http' not in page and 'href=' not in page
    assert 'images/s' in (whole / 'run/log.txt').read_text()
    assert {p.name for p in (whole / 'run').iterdir()} == {
      *('config.json', 'env.json', 'labels.json', 'lock', 'log.txt'),
      *('quality.json', 'report.html'),
    }


@pytest.mark.slow
def test_killed_three_times_ends_in_the_same_bytes(
  whole, mini_data, trained, tmp_path
):
  rng = random.Random(0)
  for _ in range(3):
    process = start(mini_data, trained, tmp_path)
    shards = rng.randint(1, 2)
    for line in process.stdout:
      shards -= 'images/s' in line
      if not shards:
        break
    time.sleep(rng.uniform(0, 0.03))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list((tmp_path / 'pseudo').glob('1.0.0*/*array_record*'))
  output = finish(start(mini_data, trained, tmp_path))
  assert 'of 12 shards are finished' in output
  assert contents(tmp_path) == contents(whole)


@pytest.mark.slow
def test_sigterm_stops_and_the_same_command_goes_on(
  whole, mini_data, trained, tmp_path
):
  process = start(mini_data, trained, tmp_path)
  for line in process.stdout:
    if 'images/s' in line:
      break
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  assert 'the same command resumes here' in output
  finish(start(mini_data, trained, tmp_path))
  assert contents(tmp_path) == contents(whole)


# What each process runs, with one device of its own.
PROGRAM = """
import importlib, pathlib, sys
import jax
jax.distributed.initialize()
root, tests, data_dir, segmenter, folder = map(pathlib.Path, sys.argv[1:])
sys.path[:0] = [str(root), str(tests)]
from absl import logging
import test_label
from pinpp_jax import label
logging.set_verbosity(logging.INFO)
output = folder / 'pseudo' / '1.0.0'
config = test_label.smoke(data_dir, output, segmenter=str(segmenter))
label.run(config, folder / 'run')
"""


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(
  whole, mini_data, trained, tmp_path
):
  folders = ROOT, ROOT / 'tests', mini_data, trained, tmp_path
  processes.run('-c', PROGRAM, *folders, count=2)
  assert contents(tmp_path) == contents(whole)
  logs = [tmp_path / 'run' / name for name in ('log.txt', 'log.1.txt')]
  assert [log.read_text().count('images/s') for log in logs] == [6, 6]
  scores = [f / 'run/quality.json' for f in (whole, tmp_path)]
  assert scores[0].read_bytes() == scores[1].read_bytes()


@pytest.mark.slow
def test_eight_devices_write_the_same_bytes(
  whole, mini_data, trained, tmp_path
):
  output = tmp_path / 'pseudo' / '1.0.0'
  config = smoke(mini_data, output, segmenter=str(trained))
  label.run(config, tmp_path / 'run')
  assert contents(tmp_path) == contents(whole)


def test_a_finished_set_says_so_and_stays(whole, mini_data, trained):
  before = contents(whole)
  output = finish(start(mini_data, trained, whole))
  assert 'is finished' in output
  assert contents(whole) == before


def test_a_first_look_without_a_segmenter_is_a_set_too(mini_data, tmp_path):
  config = smoke(mini_data, tmp_path / 'look' / '1.0.0', limit=5)
  config.truth = ''
  label.run(config, tmp_path / 'run')
  made = data.Recorded(dataset=config.output, split='train')
  wnids = [row['wnid'] for row in made]
  assert len(wnids) == len(set(wnids)) == 5
  manifest = pseudo.read_manifest(pathlib.Path(config.output))
  assert (manifest['segmenter']['run'], manifest['segmenter']['step']) == (
    '',
    0,
  )
  scores = json.loads((tmp_path / 'run/quality.json').read_text())
  # What it is judged on stays in proportion to what is labelled.
  assert list(scores) == ['test'] and scores['test']['images'] == 5


@pytest.fixture
def run(mini_data, trained, tmp_path):
  """Returns a function that labels into a folder, given changed fields."""

  def run(output=tmp_path / 'pseudo' / '1.0.0', **fields):
    fields = {'segmenter': str(trained)} | fields
    config = smoke(mini_data, output, **fields)
    label.run(config, tmp_path / f'run{len(list(tmp_path.glob("run*")))}')

  return run


class TestMistakes:
  @pytest.mark.parametrize(
    ('fields', 'message'),
    [
      ({'labelling.flip': True}, 'labelling.flip was False, is True'),
      ({'labelling.min_area': 0.1}, 'labelling.min_area was 0.0, is 0.1'),
      ({'shard_size': 5}, 'labelling.shard_size was 4, is 5'),
      ({'limit': 10}, 'source.images was 48, is 10; source.limit was 0'),
      ({'segmenter': ''}, "segmenter.run was 'segmenter', is ''"),
    ],
  )
  def test_a_set_of_something_else(self, fields, message, whole, run):
    before = contents(whole)
    with pytest.raises(UserError, match=message) as error:
      run(whole / 'pseudo' / '1.0.0', **fields)
    assert 'give another folder with --config.output' in str(error.value)
    assert contents(whole) == before

  def test_a_set_begun_from_something_else(self, run, monkeypatch, tmp_path):
    monkeypatch.setattr(label, 'make', lambda *_: False)
    run()
    with pytest.raises(UserError, match='labelling.flip was False, is True'):
      run(**{'labelling.flip': True})
    # The folder of the refused run may still be used for something else.
    assert not (tmp_path / 'run1' / 'config.json').exists()

  def test_a_first_look_needs_its_own_place(self, run):
    with pytest.raises(UserError, match='limit=10.*--config.output=FOLDER'):
      run('', limit=10)

  def test_a_place_that_is_taken(self, run, tmp_path):
    (tmp_path / 'mine').mkdir()
    with pytest.raises(UserError, match='mine exists and is not a set'):
      run(tmp_path / 'mine')

  def test_another_run_at_work(self, run, tmp_path):
    progress = tmp_path / 'pseudo' / '1.0.0.partial' / 'progress'
    progress.mkdir(parents=True)
    with open(progress / 'lock', 'w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      with pytest.raises(UserError, match='in use.*--config.output'):
        run()

  @pytest.mark.parametrize(
    ('name', 'size'), [('segmenter-full', ''), ('segmenter-mini', ':mini')]
  )
  def test_no_segmenter_names_the_command(self, name, size, run, tmp_path):
    with pytest.raises(UserError) as error:
      run(segmenter=str(tmp_path / name))
    assert str(tmp_path / name) in str(error.value)
    assert str(error.value).endswith(f'--config=configs/segmenter.py{size}')

  def test_a_segmenter_of_other_labels(self, run, tmp_path):
    folder = tmp_path / 'segmenter'
    folder.mkdir()
    (folder / 'config.json').write_text('{}')
    labels_lib.class_only(('n00000001',)).save(folder / 'labels.json')
    with pytest.raises(UserError, match='another label table .1 classes, 0 p'):
      run(segmenter=str(folder))

  def test_a_run_that_kept_nothing(self, run, trained, tmp_path):
    folder = tmp_path / 'segmenter'
    folder.mkdir()
    for name in ('config.json', 'labels.json'):
      shutil.copy(trained / name, folder / name)
    with pytest.raises(UserError, match='has no best/'):
      run(segmenter=str(folder))

  def test_a_network_that_is_no_segmenter(self, mini_data, tmp_path):
    config = smoke(mini_data, tmp_path / 'x')
    with config.unlocked():
      config.model = (
        importlib.import_module('configs.mpm').get_config('smoke').model
      )
    with pytest.raises(UserError, match="run of the model 'mpm', which is"):
      label.run(config, tmp_path / 'run')

  @pytest.mark.parametrize(
    ('fields', 'message'),
    [
      ({'source.name': 'flickr'}, "'flickr' is not one of .'imagenet', 'im"),
      ({'source.path': 'nowhere'}, 'nowhere: no ImageNet copy found'),
      (
        {'source.name': 'imagenet2012', 'source.path': ''},
        'imagenet2012 was not found',
      ),
      ({'source.wnids': ('n1',)}, 'n1 is not one of the 12 classes'),
      ({'truth': 'nowhere'}, 'nowhere is not a folder of masks'),
    ],
  )
  def test_a_source_or_truth_that_is_not_there(self, fields, message, run):
    with pytest.raises(UserError, match=message):
      run(**fields)


def test_images_of_masks_alone_come_from_the_copy_by_name(
  run, whole, mini_data, tmp_path
):
  run(**{'labelling.images': False})
  folder = tmp_path / 'pseudo' / '1.0.0'
  read = tfds.builder_from_directory
  size = lambda f: read(f).info.splits['train'].num_bytes
  assert size(folder) < size(whole / 'pseudo/1.0.0') / 2
  opened = lambda where, **fields: sources.Recorded(
    dataset=str(where), split='train', data_dir=str(mini_data), **fields
  )
  assert list(opened(folder)) == list(opened(whole / 'pseudo/1.0.0'))
  copy = tmp_path / 'moved'
  shutil.copytree(mini_data / 'downloads/manual/pinpp_mini/imagenet', copy)
  assert list(opened(folder, images=str(copy))) == list(opened(folder))


def test_a_copy_that_is_gone_is_told(whole, tmp_path):
  folder = shutil.copytree(whole / 'pseudo/1.0.0', tmp_path / 'alone/1.0.0')
  features = folder / 'features.json'
  stored = json.loads(features.read_text())
  del stored['featuresDict']['features']['image']
  features.write_text(json.dumps(stored))
  with pytest.raises(UserError, match='masks alone.*data.imagenet'):
    sources.Recorded(dataset=str(folder), split='train', data_dir=str(tmp_path))


def test_masks_alone_of_tfds_copy_cannot_be_joined(run):
  with pytest.raises(UserError, match="source.name must be 'imagenet'"):
    run(**{'labelling.images': False, 'source.name': 'imagenet2012'})


class TestBadImages:
  @pytest.fixture
  def copy(self, mini_data, tmp_path):
    """An ImageNet copy with an empty and a cut image."""
    copy = tmp_path / 'imagenet'
    manual = mini_data / 'downloads/manual/pinpp_mini'
    shutil.copytree(manual / 'imagenet', copy)
    known = sources.file_names('pinpp_mini', str(mini_data))
    names = sorted(
      name
      for path in (copy / 'train').glob('*/*')
      if (name := str(path.relative_to(copy / 'train'))) not in known
    )
    empty, cut = (copy / 'train' / names[i] for i in (5, 20))
    empty.write_bytes(b'')
    cut.write_bytes(cut.read_bytes()[:-300])
    return copy, names

  def test_the_first_is_named(self, copy, run):
    path, names = copy
    with pytest.raises(UserError, match=f'{names[5]}: the file is empty'):
      run(**{'source.path': str(path)})

  def test_they_are_left_out_and_named(self, copy, run, tmp_path):
    path, names = copy
    run(**{'source.path': str(path), 'labelling.skip_bad': True})
    made = tmp_path / 'pseudo' / '1.0.0'
    assert pseudo.read_manifest(made)['skipped'] == [
      [names[5], 'the file is empty'],
      [names[20], 'the file is not a readable image'],
    ]
    found = data.Recorded(dataset=str(made), split='train')
    assert len(found) == 46
    assert [found.file_name(i) for i in range(46)] == [
      name for i, name in enumerate(names) if i not in (5, 20)
    ]


def test_a_full_disk_is_told_and_the_rest_goes_on(
  whole, run, monkeypatch, tmp_path
):
  write, left = pseudo._write, [5]

  def full(*arguments):
    left[0] -= 1
    if left[0] < 0:
      raise OSError(28, 'No space left on device')
    write(*arguments)

  with monkeypatch.context() as patch:
    patch.setattr(pseudo, '_write', full)
    with pytest.raises(UserError, match='00005-of-00012 with .* bytes .*No sp'):
      run()
  assert not list(tmp_path.rglob('*.tmp'))
  run()
  assert contents(tmp_path) == contents(whole)
  assert np.all([len(x) for x in contents(tmp_path).values()])
