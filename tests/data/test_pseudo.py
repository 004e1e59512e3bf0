"""Pseudo labels on disk: whole or not there, whatever happens on the way."""

import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import built
import numpy as np
import pytest
import tensorflow_datasets as tfds

from pinpp_jax import data
from pinpp_jax.data import labels as labels_lib
from pinpp_jax.data.read import pseudo, sources
from pinpp_jax.data.read.pseudo import Draft
from pinpp_jax.errors import UserError

PLAN = {'made': 'for a test', 'options': {'flip': False}}
SHARDS = 3


def record(i):
  label = i % 2
  parts = built.PARTS[label]
  size = (40 + 7 * i, 50)
  return {
    'image': built.encoded(built.picture(i, size), 'JPEG'),
    'part_mask': built.encoded(built.local_mask(i, size, parts), 'PNG'),
    'label': label,
    'wnid': built.WNIDS[label],
    'file_name': f'{built.WNIDS[label]}/{built.WNIDS[label]}_{i}.JPEG',
    'source': 'pseudo',
    'annotations': '[]',
    'confidence': 0.125 * i,
    'part_confidence': np.arange(parts, dtype=np.float32) / 8,
  }


def block(shard):
  return [record(i) for i in range(4 * shard, 4 * shard + 4)]


def draft(folder):
  return Draft(
    output=folder / 'pinpp_pseudo' / '1.0.0',
    labels=built.labels(),
    shards=SHARDS,
  )


def write(one, shard):
  one.write(shard, block(shard), [(f'bad {shard}', 'the file is empty')])


def make(folder):
  """Goes on with a set and finishes it."""
  one = draft(folder)
  if one.finished:
    one.tidy()
    return one.output
  if not one.plan:
    one.begin(PLAN)
  for shard in range(SHARDS):
    if not one.is_whole(shard):
      write(one, shard)
  one.publish([('n3', 'its class has no parts')])
  return one.output


def contents(folder):
  return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp('whole')
  make(folder)
  return folder


@pytest.fixture
def copy(whole, tmp_path):
  shutil.copytree(whole, tmp_path / 'copy')
  return tmp_path / 'copy'


class TestReading:
  def test_gives_back_what_was_written(self, whole):
    source = data.Recorded(
      dataset='pinpp_pseudo', split='train', data_dir=str(whole)
    )
    assert len(source) == 12
    for i in range(12):
      expected = record(i)
      row = source[i]
      for key in ('image', 'part_mask', 'label', 'file_name', 'source', 'wnid'):
        assert row[key] == expected[key]
      assert source.annotations(i) == []
      image, parts = source.confidence(i)
      assert image == expected['confidence']
      np.testing.assert_array_equal(parts, expected['part_confidence'])
      assert parts.dtype == np.float32
    assert len(source.split_hash) == 64
    names = sources.file_names('pinpp_pseudo', str(whole))
    assert names == {record(i)['file_name'] for i in range(12)}

  def test_a_folder_does_for_a_name(self, whole, monkeypatch):
    folder = whole / 'pinpp_pseudo' / '1.0.0'
    assert len(data.Recorded(dataset=str(folder), split='train[:5]')) == 5
    monkeypatch.chdir(whole)
    nearby = data.Recorded(dataset='pinpp_pseudo/1.0.0', split='train')
    assert len(nearby) == 12
    monkeypatch.chdir(whole / 'pinpp_pseudo')
    assert len(data.Recorded(dataset='1.0.0', split='train')) == 12

  def test_tfds_opens_it_without_tensorflow(self, whole, tmp_path):
    (tmp_path / 'tensorflow.py').write_text('raise SystemExit("imported")')
    code = (
      'import sys; sys.path.insert(0, sys.argv[1])\n'
      'import tensorflow_datasets as tfds\n'
      'b = tfds.builder_from_directory(sys.argv[2])\n'
      'rows = b.as_data_source("train")\n'
      'assert [r["image"].shape for r in rows][1] == (50, 47, 3)\n'
      'assert [r["part_mask"].shape for r in rows][1] == (50, 47, 1)\n'
      'assert rows[1]["part_confidence"].shape == (3,)\n'
      'assert b.info.features["label"].names == '
      '["n00000001", "n00000002", "n00000003"]\n'
      'assert "tensorflow" not in sys.modules\n'
    )
    folder = str(whole / 'pinpp_pseudo' / '1.0.0')
    subprocess.run(
      [sys.executable, '-c', code, str(tmp_path), folder], check=True
    )

  def test_the_manifest_says_it_all(self, whole):
    manifest = pseudo.read_manifest(whole / 'pinpp_pseudo' / '1.0.0')
    assert {k: manifest[k] for k in PLAN} == PLAN
    assert manifest['skipped'] == [
      ['n3', 'its class has no parts'],
      *([f'bad {i}', 'the file is empty'] for i in range(SHARDS)),
    ]
    assert [s['count'] for s in manifest['shards']] == [4, 4, 4]
    assert {*manifest['shards'][0]} == {'name', 'count', 'bytes', 'sha256'}

  def test_nothing_tells_when_or_where(self, whole):
    for name, content in contents(whole / 'pinpp_pseudo' / '1.0.0').items():
      assert str(whole).encode() not in content, name


class TestMistakes:
  def refuse(self, copy, message, **fields):
    fields = {'dataset': 'pinpp_pseudo', 'data_dir': str(copy)} | fields
    with pytest.raises(UserError, match=message) as error:
      data.Recorded(split='train', **fields)
    assert '\n' not in str(error.value)

  def shard(self, copy):
    return next((copy / 'pinpp_pseudo' / '1.0.0').glob('*-00001-of-00003'))

  def test_a_missing_set_names_the_command(self, tmp_path):
    self.refuse(
      tmp_path,
      'python -m pinpp_jax.main --config=configs/label.py'
      f' --config.data.data_dir={tmp_path}',
    )

  def test_a_folder_that_is_none(self, tmp_path):
    self.refuse(tmp_path, 'no dataset_info.json', dataset=f'{tmp_path}/x')

  def test_a_missing_shard(self, copy):
    self.shard(copy).unlink()
    self.refuse(copy, '00001-of-00003 is missing.*configs/label.py')

  def test_a_shard_cut_short(self, copy):
    shard = self.shard(copy)
    shard.write_bytes(shard.read_bytes()[:-1])
    self.refuse(copy, '00001-of-00003 has .* bytes instead of .*label.py')

  def test_another_number_of_records(self, copy):
    path = copy / 'pinpp_pseudo' / '1.0.0' / 'dataset_info.json'
    info = json.loads(path.read_text())
    info['splits'][0]['shardLengths'][1] = '5'
    path.write_text(json.dumps(info))
    self.refuse(copy, '00001-of-00003 has 5 records.*says 4')
    info['splits'][0]['shardLengths'] = ['4', '4']
    path.write_text(json.dumps(info))
    self.refuse(copy, 'has 2 shards, but its manifest.json lists 3')

  @pytest.mark.parametrize('content', [None, b'', b'{"shards": '])
  def test_no_manifest(self, copy, content):
    path = copy / 'pinpp_pseudo' / '1.0.0' / 'manifest.json'
    path.unlink() if content is None else path.write_bytes(content)
    self.refuse(copy, 'manifest.json cannot be read.*label.py')

  def test_another_label_table(self, copy):
    other = labels_lib.class_only(built.WNIDS)
    self.refuse(copy, 'numbers its classes and parts differ', labels=other)

  def test_tfds_cannot_build_it(self, tmp_path):
    builder = pseudo.Pseudo(data_dir=str(tmp_path))
    with pytest.raises(UserError, match='configs/label.py'):
      builder.download_and_prepare()

  def test_tfds_reads_it_with_the_builder(self, whole):
    builder = pseudo.Pseudo(data_dir=str(whole))
    skip = {'image': tfds.decode.SkipDecoding()}
    assert len(builder.as_data_source('train', decoders=skip)) == 12
    assert builder.info.features['label'].names == [*built.WNIDS]


def test_the_door_of_tfds_passes_its_own_test():
  root = pathlib.Path(__file__).parents[2]
  paths = os.pathsep.join([str(root), str(root / 'datasets')])
  subprocess.run(
    [sys.executable, '-m', 'unittest', '-q']
    + ['pinpp_pseudo.pinpp_pseudo_dataset_builder_test'],
    env=os.environ | {'PYTHONPATH': paths},
    check=True,
  )


class Killed(BaseException):
  """Not an error that anything in the package may catch."""


# Where a set may be when its maker dies: before each of these calls.
STEPS = ('os.replace', 'os.fsync', 'write_json', '_write', '_write_info')


class TestFaults:
  @pytest.mark.parametrize('step', STEPS)
  def test_killed_anywhere_ends_in_the_same_bytes(
    self, step, whole, tmp_path, monkeypatch
  ):
    for left in range(40):
      folder = tmp_path / str(left)
      with monkeypatch.context() as patch:
        place, _, name = step.rpartition('.')
        owner = pseudo.os if place else pseudo
        real, count = getattr(owner, name), [left]

        def dying(*args, real=real, count=count):
          if not count[0]:
            raise Killed
          count[0] -= 1
          return real(*args)

        patch.setattr(owner, name, dying)
        try:
          make(folder)
        except Killed:
          assert not draft(folder).output.exists() or draft(folder).finished
        else:
          break  # There are no more such calls.
      assert contents(make(folder)) == contents(
        whole / 'pinpp_pseudo' / '1.0.0'
      )
    assert left  # It died at least once.

  def test_what_a_killed_run_left_is_removed(self, whole, tmp_path):
    one = draft(tmp_path)
    one.begin(PLAN)
    one.write(0, block(0)[:1])  # Of another run: its bytes are not the note's.
    (one.folder / one.name(0)).write_bytes(b'half')
    (one.folder / f'.{one.name(1)}.tmp').write_bytes(b'half')
    (one.folder / one.name(2)).write_bytes(b'without a note')
    assert not any(one.is_whole(i) for i in range(SHARDS))
    assert contents(make(tmp_path)) == contents(
      whole / 'pinpp_pseudo' / '1.0.0'
    )

  def test_killed_after_the_last_step(self, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
      patch.setattr(Draft, 'tidy', lambda self: None)
      output = make(tmp_path)
    assert (output / pseudo.PROGRESS).is_dir()
    assert len(data.Recorded(dataset=str(output), split='train')) == 12
    assert contents(make(tmp_path)) == contents(
      whole / 'pinpp_pseudo' / '1.0.0'
    )

  def test_a_full_disk_leaves_no_half_shard(self, whole, tmp_path):
    one = draft(tmp_path)
    one.begin(PLAN)
    write(one, 0)
    noise = np.random.default_rng(0).bytes(300_000)
    large = [record(0) | {'image': noise}]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
      with pytest.raises(UserError) as error:
        one.write(1, large)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = str(error.value)
    assert str(one.folder) in message and '\n' not in message
    assert '00001-of-00003 with 30' in message and 'bytes' in message
    assert 'same command again' in message
    assert {p.name for p in one.folder.iterdir()} == {
      one.name(0),
      pseudo.PROGRESS,
    }
    assert one.is_whole(0) and not one.is_whole(1)
    assert contents(make(tmp_path)) == contents(
      whole / 'pinpp_pseudo' / '1.0.0'
    )

  def test_no_room_for_the_manifest(self, whole, tmp_path, monkeypatch):
    def full(*_):
      raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
      patch.setattr(pseudo, '_write_info', full)
      with pytest.raises(UserError, match='manifest.*No space left on device'):
        make(tmp_path)
    assert not draft(tmp_path).output.exists()
    assert contents(make(tmp_path)) == contents(
      whole / 'pinpp_pseudo' / '1.0.0'
    )

  def test_a_shard_without_records(self, tmp_path):
    one = draft(tmp_path)
    one.begin(PLAN)
    for shard in range(SHARDS):
      one.write(shard, block(shard) if shard != 1 else [])
    one.publish()
    assert len(data.Recorded(dataset=str(one.output), split='train')) == 8
