"""The numbers of a data set against direct counting, from either form of it."""

import collections
import csv
import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco
import pytest

from pinpp_jax import tools
from pinpp_jax.data.read import open_any, statistics
from pinpp_jax.tools import stats


@pytest.fixture(scope='module')
def release(mini_data):
  return mini_data / 'downloads' / 'manual' / 'pinpp_mini'


@pytest.fixture(scope='module')
def found(release):
  return statistics.load(str(release))


def test_counts_are_those_of_the_files(release, found):
  masks, images = collections.Counter(), collections.Counter()
  names = {}
  areas = []
  for path in sorted((release / 'json').iterdir()):
    data = json.loads(path.read_text())
    images[path.stem] = len(data['images'])
    by_id = {c['id']: c['name'] for c in data['categories']}
    names[path.stem] = list(by_id.values())
    for entry in data['annotations']:
      masks[path.stem, by_id[entry['category_id']]] += 1
      runs = coco.merge(coco.frPyObjects(entry['segmentation'], 96, 96))
      areas.append(coco.decode(runs).sum() / 96**2)
  totals = found.totals()
  assert totals['classes'] == len(names) == 12
  assert totals['images'] == sum(images.values())
  assert totals['parts'] == sum(map(len, names.values()))
  assert totals['masks'] == sum(masks.values())
  assert totals['masks per image'] == sum(masks.values()) / sum(images.values())
  assert totals['median area of a mask'] == pytest.approx(np.median(areas))
  assert totals['whole-object parts'] == 1
  np.testing.assert_allclose(np.sort(found.areas), np.sort(areas))
  for row in found.class_rows():
    assert row.images == images[row.wnid]
    assert row.parts == len(names[row.wnid])
    assert row.masks == sum(masks[row.wnid, n] for n in names[row.wnid])
  for row in found.part_rows():
    assert row.masks == masks[row.wnid, row.part]


def test_a_built_data_set_has_the_numbers_of_its_release(mini_data, found):
  built = statistics.load('pinpp_mini', str(mini_data))
  ours, theirs = found.totals(), built.totals()
  assert ours.keys() == theirs.keys()
  for name, value in ours.items():
    assert theirs[name] == pytest.approx(value), name
  assert built.class_rows() == found.class_rows()
  assert built.part_rows() == found.part_rows()
  np.testing.assert_array_equal(np.sort(built.areas), np.sort(found.areas))


def test_a_split_alone(mini_data):
  folder = open_any.data_set('pinpp_mini', str(mini_data))
  one = statistics.of_data_set(str(folder), ['validation'])
  assert one.totals()['images'] == 12 * 4


def test_everything_that_is_asked_for_is_written(mini_data, tmp_path, capsys):
  words = {
    'json': tmp_path / 'stats.json',
    'csv': tmp_path / 'tables',
    'html': tmp_path / 'stats.html',
    'png': tmp_path / 'drawings',
  }
  options = [f'--{name}={path}' for name, path in words.items()]
  source = ['pinpp_mini', f'--data_dir={mini_data}']
  assert tools.main(['stats', *source, *options]) == 0
  output = capsys.readouterr().out
  assert 'masks per image' in output and 'sailing boat' in output
  numbers = json.loads(words['json'].read_text())
  assert sum(numbers['parts_per_class'].values()) == 12
  assert sum(numbers['masks_per_image'].values()) == numbers['totals']['images']
  with open(words['csv'] / 'parts.csv') as file:
    rows = list(csv.DictReader(file))
  assert [row['part'] for row in rows] == [p['part'] for p in numbers['parts']]
  html = words['html'].read_text()
  pictures = sorted(words['png'].glob('*.png'))
  assert html.count('data:image/svg+xml') == len(pictures) >= 6
  assert 'src="http' not in html
  for path in pictures:
    with Image.open(path) as picture:
      assert len(np.unique(np.asarray(picture))) > 10


def test_a_complete_release_is_put_beside_the_published_numbers():
  from pinpp_jax.data.labels import class_only

  table = class_only([f'n{i:08d}' for i in range(1000)])
  empty = statistics.Statistics(table=table, images=())
  rows = {name: other for name, _, other in stats.totals(empty)}
  assert rows['masks'] == '406,364' and rows['parts'] == '3,308'
  assert 'published: 100,000' in stats.as_text(empty)


def test_what_cannot_be_counted_is_named(tmp_path, capsys):
  for source in (tmp_path / 'absent', tmp_path):
    assert stats.main([str(source)]) == 2
    assert str(source) in capsys.readouterr().err


def test_a_data_set_without_annotations_can_be_drawn(found):
  from pinpp_jax.report import distributions

  bare = [
    statistics.Image(wnid=i.wnid, areas=np.empty(0), visible=i.visible)
    for i in found.images
  ]
  for images in (tuple(bare), ()):
    some = statistics.Statistics(table=found.table, images=images)
    assert all(d.png for d in distributions.draw(some))
    assert {row.masks for row in some.part_rows()} == {0}
