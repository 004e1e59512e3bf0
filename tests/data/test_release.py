"""The reader accepts what a release may hold and refuses what it may not."""

import json
import pathlib
import shutil

import numpy as np
from pycocotools import mask as coco
import pytest

from pinpp_jax.data.release import coco_masks, painting
from pinpp_jax.data.release.findings import Findings
from pinpp_jax.data.release.reader import Release
from pinpp_jax.errors import UserError

DUMMY = pathlib.Path(__file__).parents[2] / 'datasets' / 'pinpp' / 'dummy_data'
WNID = 'n01440764'


@pytest.fixture
def folder(tmp_path):
  return pathlib.Path(shutil.copytree(DUMMY, tmp_path / 'release'))


def change(folder, edit, wnid=WNID):
  path = folder / 'json' / f'{wnid}.json'
  data = json.loads(path.read_text())
  edit(data)
  path.write_text(json.dumps(data))


def load(folder, wnid=WNID, skip_bad=False):
  findings = Findings(skip_bad=skip_bad)
  return Release(folder, findings).load(wnid), findings


def test_reads_classes_parts_and_containers(folder):
  record, findings = load(folder)
  assert record.object_name == 'tench'
  assert record.part_names == ('tench body', 'tench fin', 'tench eye')
  assert record.generic_names == ('body', 'fin', 'eye')
  assert record.parents == ((), (1,), (1,))
  assert record.part_counts().tolist() == [5, 5, 5]
  assert findings.counts['category_id stored as text'] == 15
  purse, findings = load(folder, 'n04026417')
  assert purse.generic_names == ('purse',)
  assert findings.counts['whole-object part'] == 1


def test_real_release_is_read_in_strict_mode(pin_real):
  findings = Findings()
  records = list(Release(pin_real, findings))
  assert [len(r.images) for r in records] == [120, 120, 67, 120, 120, 120, 89]
  assert sum(len(r.part_names) for r in records) == 62
  assert sum(int(r.part_counts().sum()) for r in records) == 6681
  assert not findings.skipped


def test_ids_may_count_from_anywhere_and_be_text(folder):
  def shift(data):
    for image in data['images']:
      image['id'] = str(image['id'] + 99)
    for category in data['categories']:
      category['id'] = str(category['id'] - 1)
    for entry in data['annotations']:
      entry['image_id'] += 99
      entry['category_id'] = int(entry['category_id']) - 1
      del entry['bbox']

  before, _ = load(folder)
  change(folder, shift)
  after, _ = load(folder)
  for one, other in zip(before.images, after.images, strict=True):
    assert [a.part for a in one.annotations] == [
      a.part for a in other.annotations
    ]


def test_byte_order_mark_and_line_endings_do_not_matter(folder):
  before, _ = load(folder)
  for path in folder.rglob('*.*'):
    if path.suffix in ('.json', '.txt'):
      text = path.read_text().replace('\n', '\r\n')
      path.write_bytes(b'\xef\xbb\xbf' + text.encode() + b'\r\n\r\n')
  after, _ = load(folder)
  assert after.parents == before.parents
  assert after.part_names == before.part_names


def test_early_revisions_have_no_index_files(folder):
  for name in ('category_name.json', 'discarded_data.json'):
    (folder / name).unlink()
  shutil.rmtree(folder / 'including')
  record, _ = load(folder)
  assert record.object_name == 'tench'
  assert record.parents == ((), (), ())


def test_names_without_the_object_stay_whole(folder):
  path = folder / 'category_name.json'
  path.write_text(path.read_text().replace('"tench"', '"Coarse_Fish"'))
  record, findings = load(folder)
  assert record.generic_names == record.part_names
  assert record.parents == ((), (1,), (1,))
  assert findings.counts['part name without the object'] == 3


def test_object_prefix_ignores_case_and_underscores(folder):
  def rename(data):
    data['categories'][1]['name'] = 'TENCH_fin'

  change(folder, rename)
  path = folder / 'category_name.json'
  path.write_text(path.read_text().replace('tench fin', 'TENCH_fin'))
  record, _ = load(folder)
  assert record.generic_names[1] == 'fin'


def test_discarded_images_among_the_annotated_are_reported(folder):
  name = f'{WNID}/{WNID}_7.JPEG'
  (folder / 'discarded_data.json').write_text(
    json.dumps({'blurred': [{'file_name': name}]})
  )
  _, findings = load(folder)
  assert findings.warnings['annotated image listed as discarded'] == 1


def set_segmentation(value):
  def edit(data):
    data['annotations'][0]['segmentation'] = value

  return edit


ODD = {
  'polygon with 3 numbers': [[1, 2, 3]],
  'odd count of 7 numbers': [[1, 2, 3, 4, 5, 6, 7]],
  'non-finite number': [[1, 2, float('nan'), 4, 5, 6]],
  'empty segmentation': [],
  'not a list of numbers': [['a', 2, 3, 4, 5, 6]],
  'not a list': 'polygon',
  'RLE that cannot be read': {'counts': '\x01', 'size': [40, 48]},
  'do not add up': {'counts': [3, 4], 'size': [40, 48]},
  'RLE of size': {'counts': [3, 4], 'size': [1, 7]},
}


@pytest.mark.parametrize('message', ODD)
def test_unusable_outlines_are_refused_with_file_and_annotation(
  folder, message
):
  change(folder, set_segmentation(ODD[message]))
  with pytest.raises(UserError, match=message) as error:
    load(folder)
  assert f'json/{WNID}.json, annotation 1' in str(error.value)
  record, findings = load(folder, skip_bad=True)
  assert sum(findings.skipped.values()) == 1
  assert record.part_counts().tolist() == [4, 5, 5]


def refused(edit):
  return pytest.param(edit, id=edit.__name__)


def no_image(data):
  data['annotations'][2]['image_id'] = 77


def no_category(data):
  data['annotations'][2]['category_id'] = 77


def same_id(data):
  data['annotations'][2]['id'] = data['annotations'][3]['id']


def same_image(data):
  data['images'][1]['file_name'] = data['images'][0]['file_name']


@pytest.mark.parametrize(
  'edit', [refused(e) for e in (no_image, no_category, same_id, same_image)]
)
def test_dangling_entries_are_refused_or_counted(folder, edit):
  change(folder, edit)
  with pytest.raises(UserError, match=f'json/{WNID}.json'):
    load(folder)
  record, findings = load(folder, skip_bad=True)
  assert findings.skipped
  assert record.part_counts().sum() < 15


def climbs_out(data):
  data['images'][0]['file_name'] = f'../{WNID}/{WNID}_7.JPEG'


def other_class(data):
  data['images'][0]['file_name'] = 'n04026417/n04026417_7.JPEG'


def test_an_annotation_id_may_be_any_text(folder):
  def rename(data):
    data['annotations'][0]['id'] = 'first'
    data['annotations'][1]['id'] = None

  before, _ = load(folder)
  change(folder, rename)
  after, _ = load(folder)
  for one, other in zip(before.images, after.images, strict=True):
    assert len(one.annotations) == len(other.annotations)


def test_names_are_compared_in_one_unicode_form(folder):
  def rename(data):
    data['categories'][1]['name'] = 'tench fi\u006e\u0303'

  change(folder, rename)
  path = folder / 'category_name.json'
  index = path.read_text().replace('tench fin', 'tench fi\u00f1')
  path.write_text(index)
  (folder / f'including/{WNID}.txt').write_text('fi\u00f1:body')
  record, _ = load(folder)
  assert record.part_names[1] == 'tench fi\u00f1'
  assert record.parents == ((), (1,), ())
  path.write_text(index.replace('\u00f1', '\u0274'))
  with pytest.raises(UserError, match=r'\\u0274.*\\xf1'):
    load(folder)


@pytest.mark.parametrize(
  ('name', 'content', 'said'),
  [
    ('json', b'version https://git-lfs.github.com/spec/v1\noid 1', 'Git LFS'),
    ('json', b'{"a": "\\ud800"}', 'surrogate'),
    ('json', b'{"a": %s}' % (b'1' * 5000), 'not valid JSON'),
    ('json', b'[' * 100_000, 'not valid JSON'),
    ('including', b'tench fin:tench body\n\xff', 'line 2'),
  ],
)
def test_a_file_that_cannot_be_read_is_said_in_one_line(
  folder, name, content, said
):
  ending = {'json': 'json', 'including': 'txt'}[name]
  (folder / name / f'{WNID}.{ending}').write_bytes(content)
  with pytest.raises(UserError, match=said) as error:
    load(folder)
  assert WNID in str(error.value) and '\n' not in str(error.value)


def test_hostile_outlines_take_neither_time_nor_memory():
  outlines = (
    [[1e308, 0, 5, 5, -1e308, 9]],
    [[2e12, 0, 5, 5, 6, 9]],
    [[-60_000.0 * (i % 2), 60_000.0 * (i // 2 % 2)] * 1 for i in range(3)],
    [[400_000.0 * (i % 3 - 1) for i in range(200_000)]],
    {'size': [100, float('inf')], 'counts': [1]},
    {'size': [100, 100], 'counts': [float('inf')]},
    {'size': [100, 100], 'counts': 'o' * 300_000},
  )
  for outline in outlines:
    found = []
    polygons, rle = coco_masks.read(
      outline,
      height=60_000,
      width=1_000,
      note=lambda kind: None,
      bad=lambda kind, detail, found=found: found.append(kind),
    )
    assert found and not polygons and rle is None


def same_category(data):
  data['categories'][1]['id'] = 1


def same_name(data):
  data['categories'][1]['name'] = 'tench body'


def other_parts(data):
  data['categories'][1]['name'] = 'tench tail'


def no_images(data):
  data['images'] = []


def many_parts(data):
  data['categories'] = [
    {'id': i, 'name': f'tench part {i}'} for i in range(1, 257)
  ]


@pytest.mark.parametrize(
  'edit',
  [
    refused(e)
    for e in (
      climbs_out,
      other_class,
      same_category,
      same_name,
      other_parts,
      no_images,
      many_parts,
    )
  ],
)
def test_broken_class_files_are_always_refused(folder, edit):
  change(folder, edit)
  for skip_bad in (False, True):
    with pytest.raises(UserError, match=WNID):
      load(folder, skip_bad=skip_bad)


@pytest.mark.parametrize(
  'line',
  ['fin', 'fin:body:eye', 'wing:body', 'fin:fin', 'body:fin', ':body'],
)
def test_broken_containments_name_file_and_line(folder, line):
  path = folder / 'including' / f'{WNID}.txt'
  path.write_bytes(f'fin:body\r\n\r\n{line}'.encode())
  with pytest.raises(UserError, match=f'including/{WNID}.txt, line 3'):
    load(folder)


def test_circles_over_several_parts_are_refused(folder):
  path = folder / 'including' / f'{WNID}.txt'
  path.write_text('fin:body\neye:fin\nbody:eye\n')
  with pytest.raises(UserError, match='line 3.*circle'):
    load(folder)


def test_folders_without_a_release_are_refused(folder, tmp_path):
  (tmp_path / 'empty').mkdir()
  for place in (tmp_path / 'absent', tmp_path / 'empty'):
    with pytest.raises(UserError, match=str(place)):
      Release(place, Findings())
  (folder / 'json' / 'notes.json').write_text('{}')
  with pytest.raises(UserError, match='notes.json'):
    Release(folder, Findings())
  (folder / 'json' / 'notes.json').unlink()
  (folder / 'json' / 'n04026417.json').unlink()
  with pytest.raises(UserError, match='n04026417'):
    Release(folder, Findings())


def test_truncated_json_is_refused(folder):
  path = folder / 'json' / f'{WNID}.json'
  path.write_text(path.read_text()[:300])
  with pytest.raises(UserError, match=f'{WNID}.json.*cut short'):
    load(folder)


def read_one(value, height=50, width=60):
  notes, bad = [], []
  polygons, rle = coco_masks.read(
    value, height=height, width=width, note=notes.append, bad=bad.append
  )
  assert not bad
  return polygons, rle, notes


def test_flat_lists_and_several_polygons_are_accepted():
  flat = [1, 1, 9, 1, 9, 9]
  assert len(read_one(flat)[0]) == len(read_one([flat])[0]) == 1
  assert 'flat polygon list' in read_one(flat)[2]
  assert len(read_one([flat, flat])[0]) == 2


def test_run_lengths_are_those_of_pycocotools():
  rng = np.random.default_rng(0)
  for density in (0.02, 0.5, 0.98):
    pixels = (rng.random((50, 60)) < density).astype(np.uint8)
    packed = coco.encode(np.asfortranarray(pixels))
    _, rle, _ = read_one(
      {'counts': packed['counts'].decode(), 'size': [50, 60]}
    )
    _, plain, _ = read_one({'counts': rle.counts.tolist(), 'size': [50, 60]})
    np.testing.assert_array_equal(rle.counts, plain.counts)
    np.testing.assert_array_equal(painting.decode_rle(rle), pixels.astype(bool))


def test_outlines_far_outside_are_cut_without_changing_the_picture():
  rng = np.random.default_rng(1)
  for _ in range(20):
    ring = rng.uniform(-700, 800, 12)
    polygons, _, notes = read_one([ring.tolist()])
    expected = coco.decode(coco.frPyObjects([ring.tolist()], 50, 60))[..., 0]
    if polygons:
      runs = coco.frPyObjects([polygons[0].ravel().tolist()], 50, 60)
      found = coco.decode(runs)[..., 0]
    else:
      found = np.zeros_like(expected)
    # Edges are rounded to a fifth of a pixel along their length.
    assert (found != expected).mean() < 0.03
    assert notes == ['polygon clipped at the image border']


def test_absurd_coordinates_do_not_take_absurd_time():
  polygons, _, _ = read_one([[0, 0, 1e12, 0, 1e12, 1e12, 0, 1e12]])
  assert np.abs(polygons[0]).max() < 1000
