"""Sources give back what was built, and refuse what does not fit."""

import dataclasses
import io
import pickle
import shutil
import subprocess
import sys

import built
import pytest
import tensorflow_datasets as tfds

from pinpp_jax import data
from pinpp_jax.data.read import sources
from pinpp_jax.data.release import splits
from pinpp_jax.errors import UserError


@pytest.fixture
def copy(tmp_path, data_dir):
  """The built data set in a place where a test may damage it."""
  return shutil.copytree(data_dir, tmp_path / 'copy')


@pytest.fixture
def imagenet(tmp_path):
  """A copy of the annotated images (all splits) and two more of each class."""
  root = tmp_path / 'imagenet'
  names = [
    built.file_name(s, i) for s, n in built.SIZES.items() for i in range(n)
  ]
  names += [f'{w}/{w}_{i}.JPEG' for w in built.WNIDS for i in (900, 901)]
  names += ['n00000009/n00000009_1.JPEG']  # Of no class of the table.
  for i, name in enumerate(names):
    path = root / 'train' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(built.encoded(built.picture(i, (40, 50)), 'JPEG'))
  return root


def pinpp(data_dir, split='train', **fields):
  return data.Recorded(data_dir=str(data_dir), split=split, **fields)


class TestRecorded:
  def test_gives_back_what_was_built(self, data_dir):
    source = pinpp(data_dir)
    assert len(source) == built.SIZES['train']
    rows = {source[i]['file_name']: source[i] for i in range(len(source))}
    for i in range(len(source)):
      record = built.record('train', i)
      row = rows[record['file_name']]
      for key in ('image', 'label', 'wnid', 'source'):
        assert row[key] == record[key]
      mask = None if record['source'] == 'none' else record['part_mask']
      assert row['part_mask'] == mask

  def test_knows_names_annotations_and_labels(self, data_dir):
    source = pinpp(data_dir, 'test')
    names = {source.file_name(i) for i in range(len(source))}
    assert names == {built.file_name('test', i) for i in range(4)}
    assert source.file_name(2) == source[2]['file_name']
    assert {a['id'] for i in range(4) for a in source.annotations(i)} == set(
      range(4)
    )
    assert source.labels == built.labels()

  def test_reads_a_part_of_a_split(self, data_dir):
    assert len(pinpp(data_dir, 'train[:5]')) == 5
    assert len(pinpp(data_dir, 'train+test')) == 16

  def test_ends(self, data_dir):
    source = pinpp(data_dir)
    assert len(list(source)) == len(source)
    with pytest.raises(IndexError):
      source[-1]

  def test_survives_pickling(self, data_dir):
    source = pickle.loads(pickle.dumps(pinpp(data_dir)))
    assert source[3]['image'][:2] == b'\xff\xd8'
    assert source.labels == built.labels()

  def test_reads_the_newest_version(self, copy):
    shutil.copytree(copy / 'pinpp' / '1.0.0', copy / 'pinpp' / '1.10.0')
    shutil.copytree(copy / 'pinpp' / '1.0.0', copy / 'pinpp' / '1.9.0')
    (copy / 'pinpp' / 'incomplete.XYZ_2.0.0').mkdir()
    assert sources.dataset_folder('pinpp', str(copy)).name == '1.10.0'

  def test_looks_where_tfds_looks(self, data_dir, monkeypatch):
    monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
    source = data.Recorded(split='test')
    assert len(source) == 4

  def test_never_imports_tensorflow(self, data_dir, tmp_path):
    (tmp_path / 'tensorflow.py').write_text('raise SystemExit("imported")')
    code = (
      'import sys; sys.path.insert(0, sys.argv[1])\n'
      'from pinpp_jax import data\n'
      'fields = dict(data_dir=sys.argv[2], split="test")\n'
      's = data.Recorded(**fields)\n'
      'assert len([s[i] for i in range(len(s))]) == 4\n'
      'assert "tensorflow" not in sys.modules\n'
    )
    subprocess.run(
      [sys.executable, '-c', code, str(tmp_path), str(data_dir)], check=True
    )


class TestMistakes:
  def test_a_missing_data_set_names_place_and_command(self, tmp_path):
    with pytest.raises(UserError) as e:
      pinpp(tmp_path)
    message = str(e.value)
    assert str(tmp_path / 'pinpp') in message and '\n' not in message
    assert 'pinpp build pinpp --manual_dir=' in message
    assert f'--data_dir={tmp_path}' in message

  def test_the_mini_needs_no_manual_folder(self, tmp_path):
    with pytest.raises(UserError, match='pinpp build pinpp_mini --data_dir'):
      pinpp(tmp_path, dataset='pinpp_mini')

  @pytest.mark.parametrize('split', ['training', 'train[:', '', 'train[1:x]'])
  def test_an_unknown_split(self, data_dir, split):
    with pytest.raises(UserError, match=r"\['test', 'train', 'validation'\]"):
      pinpp(data_dir, split)

  def test_an_unfinished_build(self, copy):
    (copy / 'pinpp' / '1.0.0' / 'labels.json').unlink()
    with pytest.raises(UserError, match='labels.json.*build it again'):
      pinpp(copy)

  def test_another_numbering(self, data_dir):
    table = built.labels()
    parts = tuple(
      dataclasses.replace(p, name=p.name + 'x') for p in table.parts
    )
    other = dataclasses.replace(table, parts=parts)
    assert pinpp(data_dir, labels=table).labels == table
    with pytest.raises(UserError, match='3 classes, 5 parts'):
      pinpp(data_dir, labels=other)

  def test_another_split(self, data_dir):
    right = splits.hash_of(splits.load(data_dir / 'pinpp' / '1.0.0'))
    assert pinpp(data_dir, split_hash=right).split_hash == right
    with pytest.raises(UserError, match=right):
      pinpp(data_dir, split_hash='0' * 64)

  def test_a_damaged_shard_is_named(self, copy):
    shard = next((copy / 'pinpp' / '1.0.0').glob('*train*'))
    content = bytearray(shard.read_bytes())
    content[1000:9000] = bytes(8000)
    shard.write_bytes(content)
    source = pinpp(copy)
    with pytest.raises(UserError, match='Record .*pinpp/1.0.0.*damaged'):
      list(source)


class TestImageNet:
  def test_holds_the_classes_of_the_table(self, imagenet):
    source = data.ImageNet(path=str(imagenet), labels=built.labels())
    assert len(source) == sum(built.SIZES.values()) + 6
    for i in range(len(source)):
      row = source[i]
      assert row['file_name'] == source.file_name(i)
      assert row['wnid'] == row['file_name'].split('/')[0]
      assert built.WNIDS[row['label']] == row['wnid']
      assert row['part_mask'] is None and row['source'] == 'none'
      assert (
        row['image'] == (imagenet / 'train' / row['file_name']).read_bytes()
      )

  @pytest.mark.parametrize('listed', [True, False])
  def test_no_annotated_image_comes_back(self, imagenet, copy, listed):
    if not listed:  # Then the names are read from the records.
      (copy / 'pinpp' / '1.0.0' / splits.FILE).unlink()
    source = data.ImageNet(
      path=str(imagenet),
      exclude=('pinpp',),
      data_dir=str(copy),
      labels=built.labels(),
    )
    assert [source.file_name(i) for i in range(len(source))] == [
      f'{w}/{w}_{i}.JPEG' for w in built.WNIDS for i in (900, 901)
    ]

  def test_survives_pickling(self, imagenet):
    source = data.ImageNet(path=str(imagenet), labels=built.labels())
    assert pickle.loads(pickle.dumps(source))[5] == source[5]

  def test_a_class_without_images(self, imagenet):
    shutil.rmtree(imagenet / 'train' / built.WNIDS[1])
    with pytest.raises(UserError, match=f'1 of 3 classes: {built.WNIDS[1]}'):
      data.ImageNet(path=str(imagenet), labels=built.labels())

  def test_some_classes_only(self, imagenet):
    source = data.ImageNet(
      path=str(imagenet), wnids=built.WNIDS[1:2], labels=built.labels()
    )
    assert {row['wnid'] for row in source} == {built.WNIDS[1]}
    # Others may be absent from the copy.
    shutil.rmtree(imagenet / 'train' / built.WNIDS[0])
    again = data.ImageNet(
      path=str(imagenet), wnids=built.WNIDS[1:2], labels=built.labels()
    )
    assert list(again) == list(source)
    with pytest.raises(UserError, match='n09999999 is not one of the 3'):
      data.ImageNet(
        path=str(imagenet), wnids=['n09999999'], labels=built.labels()
      )


class ImageNet2012(tfds.core.GeneratorBasedBuilder):
  """As TFDS has it: file names without folders, in any order."""

  name = 'imagenet2012'
  VERSION = tfds.core.Version('5.1.0')
  url_infos = {}

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(encoding_format='jpeg'),
          'label': tfds.features.ClassLabel(num_classes=1000),
          'file_name': tfds.features.Text(),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    names = [built.file_name('train', i) for i in range(built.SIZES['train'])]
    names += [f'{w}/{w}_{i}.JPEG' for w in built.WNIDS for i in (900, 901)]
    names += ['n00000009/n00000009_1.JPEG']
    for i, name in enumerate(names):
      image = built.encoded(built.picture(i, (40, 50)), 'JPEG')
      file = name.rpartition('/')[2]
      yield file, {'image': io.BytesIO(image), 'label': 7, 'file_name': file}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """A data folder with TFDS's ImageNet."""
  root = tmp_path_factory.mktemp('tfds')
  made = ImageNet2012(data_dir=str(root), file_format='array_record')
  made.download_and_prepare()
  return root


class TestTfdsImageNet:
  def source(self, root, **fields):
    return sources.TfdsImageNet(
      data_dir=str(root), labels=built.labels(), **fields
    )

  def test_holds_the_classes_of_the_table_by_name(self, root):
    source = self.source(root)
    names = [source.file_name(i) for i in range(len(source))]
    assert names == sorted(names) and len(names) == built.SIZES['train'] + 6
    row = source[names.index(f'{built.WNIDS[1]}/{built.WNIDS[1]}_901.JPEG')]
    place = built.SIZES['train'] + 3
    expected = built.encoded(built.picture(place, (40, 50)), 'JPEG')
    assert row['image'] == expected
    assert (row['label'], row['wnid']) == (1, built.WNIDS[1])
    assert (row['source'], row['part_mask']) == ('none', None)

  def test_leaves_out_a_data_set(self, root, copy):
    shutil.copytree(root / 'imagenet2012', copy / 'imagenet2012')
    source = self.source(copy, exclude=['pinpp'])
    assert {source.file_name(i) for i in range(len(source))} == {
      f'{w}/{w}_{i}.JPEG' for w in built.WNIDS for i in (900, 901)
    }

  def test_a_folder_and_some_classes(self, root):
    source = self.source(root, path='imagenet2012/5.1.0', wnids=built.WNIDS[:1])
    assert {row['wnid'] for row in source} == {built.WNIDS[0]}
    assert pickle.loads(pickle.dumps(source))[2] == source[2]

  def test_none_there(self, tmp_path):
    with pytest.raises(
      UserError, match='tfds build imagenet2012 --file_format'
    ):
      self.source(tmp_path)
    with pytest.raises(UserError, match='was not found at elsewhere'):
      self.source(tmp_path, path='elsewhere')

  def test_other_files_than_array_record(self, root, tmp_path):
    shutil.copytree(root / 'imagenet2012', tmp_path / 'imagenet2012')
    info = tmp_path / 'imagenet2012' / '5.1.0' / 'dataset_info.json'
    info.write_text(info.read_text().replace('array_record', 'tfrecord'))
    with pytest.raises(
      UserError, match='tfds convert_format --dataset_version'
    ):
      self.source(tmp_path)

  def test_an_unknown_split(self, root):
    with pytest.raises(UserError, match="split='training' is not one of"):
      self.source(root, split='training')


class TestConcatenated:
  def test_is_one_source_after_another(self, data_dir):
    parts = [pinpp(data_dir, 'validation'), pinpp(data_dir, 'test')]
    both = data.Concatenated(parts)
    assert list(both) == [*parts[0], *parts[1]]
    names = [both.file_name(i) for i in range(len(both))]
    assert names == [row['file_name'] for row in both]

  def test_repeats(self, data_dir):
    parts = [pinpp(data_dir, 'validation'), pinpp(data_dir, 'test')]
    both = data.Concatenated(parts, repeats=[2, 1])
    assert list(both) == [*parts[0], *parts[0], *parts[1]]

  def test_refuses_what_does_not_fit(self, data_dir):
    one = pinpp(data_dir, 'test')
    with pytest.raises(UserError, match='no data source'):
      data.Concatenated([])
    with pytest.raises(UserError, match='2 repeats for 1'):
      data.Concatenated([one], repeats=[1, 2])
    with pytest.raises(UserError, match='at least 1'):
      data.Concatenated([one], repeats=[0])


class TestChosen:
  def test_holds_what_was_chosen(self, data_dir):
    whole = pinpp(data_dir, 'test')
    some = data.Chosen(whole, [3, 0])
    assert list(some) == [whole[3], whole[0]]
    assert some.file_name(1) == whole.file_name(0)
    assert some.labels == whole.labels
