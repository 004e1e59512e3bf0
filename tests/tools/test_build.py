"""The door without TensorFlow: what it writes, and what it leaves behind."""

import io
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from pinpp_jax import tools
from pinpp_jax.data import masks
from pinpp_jax.data.build import check_release, run
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.release import painting, splits
from pinpp_jax.data.release.findings import Findings
from pinpp_jax.data.release.reader import Release
from pinpp_jax.errors import UserError
from pinpp_jax.tools import build

ROOT = pathlib.Path(__file__).parents[2]
DUMMY = ROOT / 'datasets' / 'pinpp' / 'dummy_data'
WNID = 'n01440764'


@pytest.fixture
def release(tmp_path):
  return pathlib.Path(shutil.copytree(DUMMY, tmp_path / 'release'))


def read(folder, split):
  skip = tfds.decode.SkipDecoding()
  return tfds.builder_from_directory(folder).as_data_source(
    split, decoders={'image': skip, 'part_mask': skip}
  )


def test_records_hold_what_the_release_says(release, tmp_path):
  folder = run.build('pinpp', tmp_path / 'data', manual_dir=release)
  assert folder == tmp_path / 'data' / 'pinpp' / '1.0.0'
  table = LabelTable.load(folder / 'labels.json')
  split = splits.load(folder)
  records = {c.wnid: c for c in Release(release, Findings())}
  seen = []
  for name in splits.NAMES:
    rows = read(folder, name)
    assert [r['file_name'].decode() for r in rows] == list(split[name])
    for row in rows:
      file_name = row['file_name'].decode()
      seen.append(file_name)
      wnid = row['wnid'].decode()
      record = records[wnid]
      image = {i.file_name: i for i in record.images}[file_name]
      assert row['image'] == (release / 'train' / file_name).read_bytes()
      assert row['label'] == table.wnids.index(wnid)
      assert row['source'] == b'human'
      np.testing.assert_array_equal(
        masks.decode(row['part_mask']), painting.paint(image, record).mask
      )
      entries = [a.entry for a in image.annotations]
      assert json.loads(row['annotations']) == entries
  assert sorted(seen) == sorted(
    i.file_name for c in records.values() for i in c.images
  )
  facts = json.loads((folder / 'metadata.json').read_text())
  assert facts['split_hash'] == splits.hash_of(split)
  assert facts['label_hash'] == table.hash
  assert facts['masks'] == 20


def test_real_release_builds_in_strict_mode(pin_real, tmp_path, capsys):
  arguments = [f'--manual_dir={pin_real}', f'--data_dir={tmp_path}']
  assert tools.main(['build', 'pinpp', *arguments]) == 0
  out = capsys.readouterr().out
  assert '7 classes, 62 parts, 6681 masks on 756 images' in out
  assert 'skipped: nothing' in out
  info = tfds.builder_from_directory(tmp_path / 'pinpp' / '1.0.0').info
  assert {n: s.num_examples for n, s in info.splits.items()} == {
    'train': 604,
    'validation': 76,
    'test': 76,
  }


def test_two_builds_are_the_same_bytes_however_the_copy_is_kept(
  release, tmp_path
):
  one = run.build('pinpp', tmp_path / 'one', manual_dir=release)
  elsewhere = tmp_path / 'ILSVRC' / 'Data' / 'CLS-LOC'
  elsewhere.mkdir(parents=True)
  (release / 'train').rename(elsewhere / 'train')
  other = run.build(
    'pinpp',
    tmp_path / 'other',
    manual_dir=release,
    imagenet_dir=str(tmp_path),
  )
  for path in one.glob('*.array_record*'):
    assert path.read_bytes() == (other / path.name).read_bytes()


def test_shards_are_cut_evenly(release, tmp_path, monkeypatch):
  from pinpp_jax.data.build import shards

  whole = run.build('pinpp', tmp_path / 'whole', manual_dir=release)
  monkeypatch.setattr(shards, 'SHARD_BYTES', 2000)
  cut = run.build('pinpp', tmp_path / 'cut', manual_dir=release)
  assert len(list(cut.glob('*train*'))) > 1
  for split in splits.NAMES:
    names = [[r['file_name'] for r in read(f, split)] for f in (whole, cut)]
    assert names[0] == names[1]


def test_given_split_files_are_used(release, tmp_path):
  names = [i.file_name for c in Release(release, Findings()) for i in c.images]
  (release / 'splits').mkdir()
  lists = {'train': names[:4], 'validation': [], 'test': names[4:6]}
  for name, files in lists.items():
    (release / 'splits' / f'{name}.txt').write_text('\n'.join(files))
  folder = run.build('pinpp', tmp_path / 'data', manual_dir=release)
  assert len(read(folder, 'train')) == 4
  assert len(read(folder, 'test')) == 2
  facts = json.loads((folder / 'metadata.json').read_text())
  assert facts['split_rule'] == splits.GIVEN
  assert facts['findings']['counted']['image in no split file'] == 4


def edit(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))


def empty_folder(release):
  shutil.rmtree(release)
  release.mkdir()
  return 'is empty'


def no_images(release):
  path = release / 'json' / f'{WNID}.json'
  data = json.loads(path.read_text())
  path.write_text(json.dumps(dict(data, images=[])))
  return f'json/{WNID}.json'


def no_copy(release):
  shutil.rmtree(release / 'train')
  return 'no ImageNet copy'


def missing_image(release):
  (release / 'train' / WNID / f'{WNID}_7.JPEG').unlink()
  return f'{WNID}_7.JPEG'


def corrupt_image(release):
  path = release / 'train' / WNID / f'{WNID}_7.JPEG'
  path.write_bytes(path.read_bytes()[:400])
  return f'{WNID}_7.JPEG.*decoded'


def turned_image(release):
  path = release / 'train' / WNID / f'{WNID}_7.JPEG'
  stream = io.BytesIO()
  exif = Image.Exif()
  exif[0x0112] = 6
  with Image.open(path) as image:
    image.transpose(Image.Transpose.ROTATE_90).save(stream, 'JPEG', exif=exif)
  path.write_bytes(stream.getvalue())
  return 'EXIF'


def short_polygon(release):
  path = release / 'json' / f'{WNID}.json'
  data = json.loads(path.read_text())
  data['annotations'][4]['segmentation'] = [[1, 2, 3]]
  path.write_text(json.dumps(data))
  return 'annotation 5: polygon with 3 numbers'


def unknown_category(release):
  path = release / 'json' / f'{WNID}.json'
  edit(path, '"category_id": "2"', '"category_id": "9"')
  return 'category_id 9'


def unknown_split_name(release):
  (release / 'splits').mkdir()
  for name in splits.NAMES:
    (release / 'splits' / f'{name}.txt').write_text(f'{WNID}/{WNID}_1.JPEG')
  return 'train.txt, line 1'


def wrong_split_hash(release):
  names = [i.file_name for c in Release(release, Findings()) for i in c.images]
  (release / 'splits').mkdir()
  for name, files in zip(splits.NAMES, (names, [], []), strict=True):
    (release / 'splits' / f'{name}.txt').write_text('\n'.join(files))
  (release / 'splits' / 'hash.txt').write_text('0' * 64)
  return 'hash'


BROKEN = (
  empty_folder,
  no_images,
  no_copy,
  missing_image,
  corrupt_image,
  turned_image,
  short_polygon,
  unknown_category,
  unknown_split_name,
  wrong_split_hash,
)


@pytest.mark.parametrize('damage', BROKEN, ids=lambda f: f.__name__)
def test_broken_inputs_are_named_in_one_line_and_leave_nothing(
  damage, release, tmp_path, capsys
):
  message = damage(release)
  data = tmp_path / 'data'
  status = build.main(
    ['pinpp', f'--manual_dir={release}', f'--data_dir={data}']
  )
  assert status == 2
  line = capsys.readouterr().err.strip().splitlines()[-1]
  assert line.startswith('build: ')
  with pytest.raises(UserError, match=message):
    raise UserError(line)
  assert not data.exists()


@pytest.mark.parametrize(
  'damage', [missing_image, corrupt_image, turned_image, short_polygon]
)
def test_skip_bad_counts_what_it_leaves_out(damage, release, tmp_path):
  damage(release)
  folder = run.build(
    'pinpp', tmp_path / 'data', manual_dir=release, skip_bad=True
  )
  facts = json.loads((folder / 'metadata.json').read_text())
  assert sum(facts['findings']['skipped'].values()) == 1
  lost = 0 if damage is short_polygon else 1
  assert facts['images'] == 10 - lost
  assert 'skipped: 1 x ' in '\n'.join(build.summary(folder))


def test_a_failed_rebuild_keeps_the_old_data_set(release, tmp_path):
  folder = run.build('pinpp', tmp_path / 'data', manual_dir=release)
  before = {p.name: p.read_bytes() for p in folder.iterdir()}
  with pytest.raises(UserError, match='already built'):
    run.build('pinpp', tmp_path / 'data', manual_dir=release)
  corrupt_image(release)
  with pytest.raises(UserError, match='decoded'):
    run.build('pinpp', tmp_path / 'data', manual_dir=release, overwrite=True)
  assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
  assert [p.name for p in folder.parent.iterdir()] == ['1.0.0']


def test_leftovers_of_a_killed_build_are_removed(release, tmp_path):
  left = tmp_path / 'data' / 'pinpp' / '1.0.0.incompleteABC123_1.0.0'
  left.mkdir(parents=True)
  (left / 'spool.tmp').write_bytes(b'half')
  folder = run.build('pinpp', tmp_path / 'data', manual_dir=release)
  assert [p.name for p in folder.parent.iterdir()] == ['1.0.0']
  assert not (folder / 'spool.tmp').exists()


def test_mini_builds_and_needs_nothing(tmp_path, monkeypatch):
  from pinpp_jax.data.build import builder

  small = {'annotated': 5, 'unannotated': 1, 'validation': 1, 'classes': 2}
  monkeypatch.setattr(builder.PinppMini, 'RENDER', small)
  folder = run.build('pinpp_mini', tmp_path)
  assert len(read(folder, 'train')) == 6
  assert LabelTable.load(folder / 'labels.json').num_classes == 2
  with pytest.raises(UserError, match='drawn'):
    run.build('pinpp_mini', tmp_path, manual_dir=tmp_path)


def test_published_totals_are_compared_for_the_full_release(table_of_1000):
  findings = Findings()
  check_release.totals(table_of_1000, 100_000, findings)
  said = [str(one) for some in findings.examples.values() for one in some]
  assert any(
    '1000 parts instead of the published 3308 (-2308)' in s for s in said
  )
  assert any('406364' in s for s in said)
  with pytest.raises(UserError, match='99999 images.*100000'):
    check_release.totals(table_of_1000, 99_999, Findings())


def test_a_thousand_classes_must_be_those_of_imagenet(table_of_1000):
  findings = Findings(skip_bad=True)
  check_release.known_classes(table_of_1000.wnids, findings)
  assert findings.skipped['class missing'] == 1000
  assert findings.skipped['class that is not of ImageNet-1K'] == 1000
  with pytest.raises(UserError, match='n01440764'):
    check_release.known_classes(table_of_1000.wnids, Findings())


@pytest.fixture
def table_of_1000():
  from pinpp_jax.data.labels import Part

  wnids = tuple(f'n{i:08d}' for i in range(1000))
  parts = tuple(
    Part(
      global_id=i + 1,
      wnid=wnid,
      object_name='x',
      name='x',
      generic_name='x',
      local_index=1,
    )
    for i, wnid in enumerate(wnids)
  )
  return LabelTable(wnids=wnids, object_names=('x',) * 1000, parts=parts)


BLOCK = """
from importlib import machinery
import sys
class Without(machinery.PathFinder):
  @classmethod
  def find_spec(cls, name, path=None, target=None):
    if name.split('.')[0] in ('tensorflow', 'torch', 'importlib_resources'):
      return None
    return super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(machinery.PathFinder)] = Without
from pinpp_jax.tools import build
sys.exit(build.main(sys.argv[1:]))
"""


def test_builds_without_tensorflow(release, tmp_path):
  arguments = ['pinpp', f'--manual_dir={release}', f'--data_dir={tmp_path}']
  done = subprocess.run(
    [sys.executable, '-c', BLOCK, *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'pinpp' / '1.0.0' / 'labels.json').exists()


def test_help_and_unknown_tools(capsys):
  assert tools.main(['--help']) == 0
  assert 'build' in capsys.readouterr().out
  assert tools.main(['bake']) == 2
  assert 'bake' in capsys.readouterr().err
  with pytest.raises(SystemExit) as stop:
    tools.main(['build', '--help'])
  assert stop.value.code == 0
  assert '--skip_bad' in capsys.readouterr().out
