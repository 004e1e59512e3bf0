"""Exports opened with the software they are for, against the data set itself.

Every round trip starts from a release, through a build: of the drawn data set,
and of real photographs. Masks must come back pixel for pixel.
"""

import collections
import copy
import io
import json

import numpy as np
from PIL import Image
import pytest

from pinpp_jax import exports
from pinpp_jax.data import labels, masks
from pinpp_jax.data.build import run
from pinpp_jax.data.read import annotated, pseudo
from pinpp_jax.data.read.annotated import DataSet
from pinpp_jax.data.release import concepts, painting
from pinpp_jax.data.release.records import Annotation
from pinpp_jax.errors import UserError
from pinpp_jax.exports import coco, reference
from pinpp_jax.exports import concepts as manifests

OPTIONS = {
  'coco': {'kind': 'both', 'lvis': True},
  'concepts': {},
  'parquet': {},
  'reference': {},
  'webdataset': {'shard_mb': 1},
}


class Read:
  """A data set that is read once, for all exports."""

  def __init__(self, data_set, splits=()):
    self.labels, self.about = data_set.labels, data_set.about
    self.all = {k: list(some) for k, some in data_set.images(splits).items()}

  def images(self, splits, progress):
    return self.all

  @property
  def by_name(self):
    return {one.file_name: one for some in self.all.values() for one in some}


@pytest.fixture(
  scope='module',
  params=['drawn', pytest.param('real', marks=pytest.mark.slow)],
)
def source(request, tmp_path_factory):
  if request.param == 'drawn':
    folder = request.getfixturevalue('mini_data')
    return Read(DataSet(['pinpp_mini'], str(folder)))
  folder = tmp_path_factory.mktemp('real')
  release = request.getfixturevalue('pin_real')
  run.build('pinpp', folder, manual_dir=release)
  read = Read(DataSet(['pinpp'], str(folder)))
  assert len(read.by_name) == 756
  return read


@pytest.fixture(scope='module')
def exported(source, tmp_path_factory):
  folder = tmp_path_factory.mktemp('exported')
  for form, options in OPTIONS.items():
    exports.export(form, source, folder / form, **options)
  return folder


def compare(pairs, images):
  """Checks that masks are those of some images, each of them once."""
  seen = []
  by_name = {one.file_name: one for one in images}
  for name, mask in pairs:
    np.testing.assert_array_equal(mask, by_name[name].mask, err_msg=name)
    seen.append(name)
  assert sorted(seen) == sorted(by_name)


def test_the_table_and_the_origin_travel_with_every_format(source, exported):
  assert OPTIONS.keys() == exports.FORMATS.keys()
  for form in OPTIONS:
    table = labels.LabelTable.load(exported / form / 'labels.json')
    assert table == source.labels
    facts = json.loads((exported / form / 'export.json').read_text())
    assert facts['label_hash'] == table.hash
    assert facts['images'] == {k: len(some) for k, some in source.all.items()}
    assert [len(one['split_hash']) for one in facts['sources']] == [64]


def test_coco_paints_the_same_masks(source, exported):
  for split, images in source.all.items():
    compare(coco.painted(exported / f'coco/{split}.json'), images)


def test_concepts_paint_the_same_masks(source, exported):
  for split, images in source.all.items():
    path = exported / f'concepts/{split}.jsonl'
    compare(manifests.painted(path, source.labels), images)


def test_parquet_holds_the_same_masks(source, exported):
  import datasets

  found = datasets.load_dataset(
    str(exported / 'parquet'), cache_dir=str(exported / 'cache')
  )
  assert set(found) == set(source.all)
  for split, images in source.all.items():
    rows = found[split]
    assert rows.features['label'].names == list(source.labels.wnids)
    compare(
      ((row['file_name'], np.asarray(row['part_mask'])) for row in rows), images
    )
    for row, image in zip(rows, images, strict=True):
      assert row['source'] == image.source and row['label'] == image.label
      assert (row['height'], row['width']) == image.mask.shape
      assert [r['part'] for r in row['regions']] == [
        region.part for region in image.regions
      ]
  row, image = found['train'][0], source.all['train'][0]
  for stored, region in zip(row['regions'], image.regions, strict=True):
    pixels = painting.rasterise(region, *image.mask.shape)
    assert stored['area'] == pixels.sum()
    x, y, width, height = map(int, stored['bbox'])
    assert pixels[y : y + height, x : x + width].sum() == pixels.sum()
    flat = [polygon.ravel().tolist() for polygon in region.polygons]
    assert stored['polygons'] == flat


def test_the_reference_layout_holds_the_same_masks(source, exported):
  """Read as the reference's loader does: images are listed, masks follow."""
  first = dict(zip(source.labels.wnids, source.labels.first, strict=True))
  for split, images in source.all.items():
    folder = exported / 'reference' / reference.SPLITS[split]
    pairs, bytes_of = [], {one.file_name: one.image for one in images}
    for path in folder.glob('img/*/*'):
      wnid, name = path.parts[-2:]
      assert path.read_bytes() == bytes_of[f'{wnid}/{name}']
      with Image.open(
        folder / 'seg' / wnid / f'{name.split(".")[0]}.png'
      ) as png:
        assert png.mode.startswith('I')
        ids = np.asarray(png).astype(np.int64)
      local = np.where(ids > 0, ids - first[wnid] + 1, 0)
      pairs.append((f'{wnid}/{name}', local))
    compare(pairs, images)
    lines = [
      line.split(' ')
      for path in folder.glob('whether_pseudo/*.txt')
      for line in path.read_text().splitlines()
    ]
    assert sorted(name for name, _ in lines) == sorted(bytes_of)
    assert {flag for _, flag in lines} == {'0'}


def test_webdataset_holds_the_same_masks_and_images(source, exported):
  import webdataset

  for split, images in source.all.items():
    shards = sorted(map(str, (exported / 'webdataset').glob(f'{split}-*.tar')))
    assert split != 'train' or len(shards) > 1
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    facts = [json.loads(sample['json']) for sample in samples]
    compare(
      (
        (fact['file_name'], masks.decode(sample['mask.png']))
        for fact, sample in zip(facts, samples, strict=True)
      ),
      images,
    )
    for sample, fact, image in zip(samples, facts, images, strict=True):
      assert sample['jpg'] == image.image
      parts = source.labels.of_class(image.wnid)
      assert fact['parts'] == {str(p.local_index): p.name for p in parts}
      assert len(fact['regions']) == len(image.regions)


def test_coco_opens_in_pycocotools(source, exported):
  from pycocotools.coco import COCO

  images = source.all['validation']
  opened = COCO(str(exported / 'coco/validation.json'))
  table = source.labels
  assert len(opened.cats) == table.num_parts + table.num_classes
  for head, image in zip(opened.imgs.values(), images, strict=True):
    assert head['file_name'] == image.file_name
    assert (head['height'], head['width']) == image.mask.shape
    *parts, whole = opened.loadAnns(opened.getAnnIds(head['id']))
    pixels = opened.annToMask(whole)
    np.testing.assert_array_equal(pixels, image.mask > 0)
    assert opened.cats[whole['category_id']]['supercategory'] == 'object'
    assert opened.cats[whole['category_id']]['wnid'] == image.wnid
    first = int(table.first[image.label])
    for entry, region in zip(parts[:8], image.regions, strict=False):
      pixels = painting.rasterise(region, *image.mask.shape)
      np.testing.assert_array_equal(opened.annToMask(entry), pixels)
      assert entry['area'] == pixels.sum()
      assert entry['category_id'] == first + region.part - 1
      assert entry['obj_ann_id'] == whole['id']
    assert len(parts) == len(image.regions)


def test_ids_of_coco_are_unique_over_all_files(source, exported):
  files = [
    json.loads((exported / f'coco/{split}.json').read_text())
    for split in source.all
  ]
  for key in ('images', 'annotations'):
    ids = [entry['id'] for file in files for entry in file[key]]
    assert sorted(ids) == list(range(1, len(ids) + 1))
  assert files[0]['categories'] == files[1]['categories']
  ids = [category['id'] for category in files[0]['categories']]
  assert ids == list(range(1, len(ids) + 1))


def test_lvis_fields_say_what_is_in_the_training_images(source, exported):
  file = json.loads((exported / 'coco/train.json').read_text())
  images, instances = collections.Counter(), collections.Counter()
  for image in source.all['train']:
    parts = [(image.wnid, region.part) for region in image.regions]
    instances.update(parts)
    images.update(set(parts))
  for category in file['categories']:
    if category['supercategory'] == 'object':
      assert category['synset'] == category['wnid']
      continue
    key = category['wnid'], category['local_index']
    assert category['image_count'] == images[key]
    assert category['instance_count'] == instances[key]
    bound = {'r': (0, 10), 'c': (11, 100), 'f': (101, 1 << 30)}
    low, high = bound[category['frequency']]
    assert low <= images[key] <= high
  for head, image in zip(file['images'], source.all['train'], strict=True):
    first = int(source.labels.first[image.label])
    there = {first + region.part - 1 for region in image.regions}
    own = {part.global_id for part in source.labels.of_class(image.wnid)}
    assert set(head['neg_category_ids']) == own - there
    assert head['not_exhaustive_category_ids'] == []


def evaluate(module, evaluator, path, results, kind, **options):
  truth = module(str(path))
  # It writes into what it is given.
  own = truth.loadRes(copy.deepcopy(results))
  found = evaluator(truth, own, kind, **options)
  found.evaluate()
  found.accumulate()
  found.summarize()
  return np.asarray(found.stats)


def predictions(path):
  """Returns the truth as results, some of them wrong, with scores."""
  rng = np.random.default_rng(3)
  file = json.loads(path.read_text())
  categories = [category['id'] for category in file['categories']]
  results = []
  from pycocotools.coco import COCO

  opened = COCO(str(path))
  for entry in file['annotations']:
    category = entry['category_id']
    if rng.random() < 0.2:
      category = int(rng.choice(categories))
    runs = opened.annToRLE(entry)
    results.append(
      {
        'image_id': entry['image_id'],
        'category_id': category,
        'segmentation': {
          'size': list(runs['size']),
          'counts': runs['counts'].decode()
          if isinstance(runs['counts'], bytes)
          else runs['counts'],
        },
        'score': float(rng.random()),
      }
    )
  return results


def test_faster_coco_eval_scores_it_as_pycocotools_does(mini_data, tmp_path):
  import faster_coco_eval
  from pycocotools.coco import COCO
  from pycocotools.cocoeval import COCOeval

  read = DataSet(['pinpp_mini'], str(mini_data))
  exports.export('coco', read, tmp_path / 'out', kind='both', lvis=True)
  path = tmp_path / 'out/test.json'
  results = predictions(path)
  fast, fast_eval = faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster
  theirs = evaluate(COCO, COCOeval, path, results, 'segm')
  ours = evaluate(fast, fast_eval, path, results, 'segm')
  np.testing.assert_allclose(ours[:12], theirs, atol=1e-9)
  assert 0.2 < theirs[0] < 0.95
  # LVIS's rule forgives a category nobody looked for in the image.
  options = {'lvis_style': True, 'print_function': lambda *_: None}
  lenient = evaluate(fast, fast_eval, path, results, 'segm', **options)
  assert lenient[0] >= theirs[0]


def test_kinds_of_coco(mini_data, tmp_path):
  read = DataSet(['pinpp_mini'], str(mini_data))
  made = {}
  for kind in coco.KINDS:
    folder = exports.export(
      'coco', read, tmp_path / kind, kind=kind, splits=['test']
    )
    made[kind] = json.loads((folder / 'test.json').read_text())
  table = read.labels
  assert len(made['parts']['categories']) == table.num_parts
  ids = [c['id'] for c in made['objects']['categories']]
  assert ids == list(range(1, table.num_classes + 1))
  count = {kind: len(file['annotations']) for kind, file in made.items()}
  assert count['both'] == count['parts'] + count['objects']
  assert count['objects'] == len(made['both']['images'])
  with pytest.raises(UserError, match='objects alone'):
    list(coco.painted(tmp_path / 'objects/test.json'))
  with pytest.raises(UserError, match='export train too'):
    exports.export('coco', read, tmp_path / 'x', lvis=True, splits=['test'])
  assert not (tmp_path / 'x').exists()


def test_the_vocabulary_and_occupancy_of_concepts(source, exported):
  rows = json.loads((exported / 'concepts/concepts.json').read_text())
  names = {one.name for one in concepts.of_table(source.labels)}
  assert {row['concept'] for row in rows} == names
  lines = (exported / 'concepts/test.jsonl').read_text().splitlines()[:40]
  for line in map(json.loads, lines):
    image = source.by_name[line['image']]
    height, width = image.mask.shape
    parts = source.labels.of_class(image.wnid)
    count = 0
    for name, found in line['concepts'].items():
      drawn = [
        region
        for region in image.regions
        if concepts.of_part(parts[region.part - 1]) == name
      ]
      union = np.any(
        [painting.rasterise(r, height, width) for r in drawn], axis=0
      )
      grid = np.asarray(found['occupancy'])
      assert grid.shape == (14, 14)
      assert grid.mean() == pytest.approx(union.mean(), abs=1e-4)
      x0, y0, x1, y1 = np.asarray(
        [region['box_xyxy'] for region in found['regions']]
      ).T
      ys, xs = np.nonzero(union)
      assert (x0.min(), y0.min()) == (xs.min(), ys.min())
      assert (x1.max(), y1.max()) == (xs.max() + 1, ys.max() + 1)
      count += len(found['regions'])
    count += sum(len(v['regions']) for v in line['unnamed'].values())
    assert count == len(image.regions)


@pytest.mark.parametrize('shape', [(28, 14), (13, 40), (5, 100), (97, 31)])
def test_occupancy_is_the_share_of_each_cell(shape):
  pixels = np.random.default_rng(0).random(shape) < 0.4
  fine = np.kron(pixels, np.ones((14, 14)))
  cells = fine.reshape(14, shape[0], 14, shape[1]).mean(axis=(1, 3))
  np.testing.assert_allclose(manifests.occupancy(pixels), cells, atol=1e-12)


@pytest.fixture(scope='module')
def drawn_by_a_network(mini_data, tmp_path_factory):
  """A set of pseudo labels with the table of the mini set."""
  table = DataSet(['pinpp_mini'], str(mini_data)).labels
  folder = tmp_path_factory.mktemp('pseudo') / 'pinpp_pseudo' / '1.0.0'
  rng = np.random.default_rng(0)
  records = []
  for i in range(6):
    label = i % table.num_classes
    count, wnid = int(table.part_counts[label]), table.wnids[label]
    stream = io.BytesIO()
    Image.new('RGB', (40, 30)).save(stream, 'JPEG')
    mask = rng.integers(0, count + 1, (30, 40), np.uint8)
    records.append(
      {
        'image': stream.getvalue(),
        'part_mask': masks.encode(mask),
        'label': label,
        'wnid': wnid,
        'file_name': f'{wnid}/{wnid}_{90000 + i}.JPEG',
        'source': 'pseudo',
        'annotations': '[]',
        'confidence': 0.5,
        'part_confidence': np.ones(count, np.float32),
      }
    )
  draft = pseudo.Draft(output=folder, labels=table, shards=1)
  draft.begin({'made': 'for a test'})
  draft.write(0, records)
  draft.publish()
  return folder


def test_pseudo_labels_join_and_are_marked(
  mini_data, drawn_by_a_network, tmp_path
):
  both = DataSet(['pinpp_mini', str(drawn_by_a_network)], str(mini_data))
  read = Read(both, ['train'])
  predicted = {
    name: one for name, one in read.by_name.items() if one.source == 'pseudo'
  }
  assert len(predicted) == 6 < len(read.by_name)
  for form, options in OPTIONS.items():
    exports.export(form, read, tmp_path / form, **options)
  compare(coco.painted(tmp_path / 'coco/train.json'), read.all['train'])
  path = tmp_path / 'concepts/train.jsonl'
  compare(manifests.painted(path, read.labels), read.all['train'])
  flags = {}
  for path in (tmp_path / 'reference/train/whether_pseudo').iterdir():
    flags |= dict(line.split() for line in path.read_text().splitlines())
  assert {name for name, flag in flags.items() if flag == '1'} == set(predicted)
  file = json.loads((tmp_path / 'coco/train.json').read_text())
  for head in file['images']:
    assert head['source'] != 'pseudo' or head['neg_category_ids'] == []


def test_images_without_annotations_are_in_every_format(mini_data, tmp_path):
  read = Read(DataSet(['pinpp_mini'], str(mini_data)), ['test'])
  blank = annotated.AnnotatedImage(
    file_name='n99000001/n99000001_1.JPEG',
    wnid='n99000001',
    label=0,
    source='none',
    image=read.all['test'][0].image,
    mask=np.zeros((96, 96), np.uint8),
    regions=(),
  )
  read.all = {'test': [blank]}
  for form in OPTIONS:
    exports.export(form, read, tmp_path / form)
  compare(coco.painted(tmp_path / 'coco/test.json'), [blank])
  compare(
    manifests.painted(tmp_path / 'concepts/test.jsonl', read.labels), [blank]
  )
  with Image.open(
    tmp_path / 'reference/test/seg/n99000001/n99000001_1.png'
  ) as png:
    assert not np.asarray(png).any()


def test_what_covers_no_pixel_is_no_instance(mini_data, tmp_path):
  read = Read(DataSet(['pinpp_mini'], str(mini_data)), ['test'])
  image = read.all['test'][0]
  sliver = Annotation(
    id=1,
    part=1,
    polygons=(np.array([[5.0, 5.0], [5.0, 5.0], [5.0, 5.0]]),),
    rle=None,
    entry={},
  )
  thin = annotated.AnnotatedImage(
    **{**vars(image), 'regions': (*image.regions, sliver)}
  )
  read.all = {'test': [thin]}
  exports.export('coco', read, tmp_path / 'out')
  file = json.loads((tmp_path / 'out/test.json').read_text())
  assert len(file['annotations']) == len(image.regions)
