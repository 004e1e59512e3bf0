"""Every guard finds its defect by kind and place; a sound release is sound."""

import io
import json
import pathlib
import shutil

import numpy as np
from PIL import Image
import pytest

from pinpp_jax import tools
from pinpp_jax.data import masks
from pinpp_jax.data.build import check_release
from pinpp_jax.data.mini import drawn_release
from pinpp_jax.data.release.finding_kinds import GUARDS
from pinpp_jax.tools import check

FEW = dict(annotated=6, unannotated=0, validation=0)


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
  folder = tmp_path_factory.mktemp('mini') / 'release'
  drawn_release.render(folder, **FEW)
  return folder


class Damage:
  """Changes files of a release's copy."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.wnids = sorted(p.stem for p in (folder / 'json').iterdir())

  def json(self, number):
    """Returns the path and content of a class file."""
    path = self.folder / 'json' / f'{self.wnids[number]}.json'
    return path, json.loads(path.read_text())

  def edit(self, number, change):
    path, data = self.json(number)
    change(data)
    path.write_text(json.dumps(data))
    return f'json/{self.wnids[number]}.json'

  def entry(self, number, **values):
    """Changes the third annotation."""
    where = self.edit(number, lambda d: d['annotations'][2].update(values))
    return f'{where}, annotation {self.json(number)[1]["annotations"][2]["id"]}'

  def image(self, number):
    """Returns the path of a class's second image."""
    _, data = self.json(number)
    name = data['images'][1]['file_name']
    return self.folder / 'imagenet' / 'train' / name, name

  def including(self, number, line):
    wnid = self.wnids[number]
    path = self.folder / 'including' / f'{wnid}.txt'
    path.write_text(line)
    return f'including/{wnid}.txt, line {len(line.splitlines())}'

  def index(self, change):
    path = self.folder / 'category_name.json'
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))
    return 'category_name.json'


def stray(d):
  (d.folder / 'json' / 'notes.txt').write_text('')
  return 'json/notes.txt'


def truncated(d):
  path, _ = d.json(0)
  path.write_bytes(path.read_bytes()[:500])
  return f'json/{path.name}'


def no_utf8(d):
  path = d.folder / 'including' / f'{d.wnids[0]}.txt'
  path.write_bytes(b'\xff\xfe:body')
  return f'including/{path.name}'


def no_class_of_index(d):
  path, _ = d.json(1)
  path.unlink()
  return 'category_name.json'


def no_key_in_index(d):
  return d.index(lambda e: e[0].pop('part name')) + ', entry 1'


def other_parts_in_index(d):
  d.index(lambda e: e[2]['part name'].append('fish crown'))
  return f'json/{d.wnids[2]}.json'


def other_order_in_index(d):
  d.index(lambda e: e[2]['part name'].reverse())
  return f'json/{d.wnids[2]}.json'


def containment_of_nothing(d):
  (d.folder / 'including' / 'n00000009.txt').write_text('a:b')
  return 'including/n00000009.txt'


def no_annotations(d):
  return d.edit(0, lambda data: data.pop('annotations'))


def word_as_category(d):
  return d.entry(0, category_id='wheel')


def negative_size(d):
  _, name = d.image(0)
  d.edit(0, lambda data: data['images'][1].update(height=-5))
  return name


def second_image(d):
  d.edit(
    0,
    lambda data: data['images'][2].update(
      file_name=data['images'][1]['file_name']
    ),
  )
  return d.image(0)[1]


def second_annotation(d):
  _, data = d.json(0)
  return d.entry(0, id=data['annotations'][1]['id'])


def second_category_id(d):
  return d.edit(0, lambda data: data['categories'][1].update(id=1))


def second_category_name(d):
  return d.edit(
    0,
    lambda data: data['categories'][1].update(
      name=data['categories'][0]['name']
    ),
  )


def category_without_name(d):
  d.edit(0, lambda data: data['categories'][1].update(name=' '))
  return f'json/{d.wnids[0]}.json, category 2'


def too_many_parts(d):
  more = [{'id': 900 + i, 'name': f'wagon part {i}'} for i in range(260)]
  return d.edit(0, lambda data: data['categories'].extend(more))


def unknown_image(d):
  return d.entry(0, image_id=999)


def unknown_category(d):
  return d.entry(0, category_id=999)


def climbing_name(d):
  name = f'../{d.wnids[0]}/{d.wnids[0]}_1.JPEG'
  d.edit(0, lambda data: data['images'][1].update(file_name=name))
  return f'json/{d.wnids[0]}.json, image 2'


def name_of_another_class(d):
  name = f'{d.wnids[1]}/{d.wnids[1]}_1.JPEG'
  d.edit(0, lambda data: data['images'][1].update(file_name=name))
  return f'json/{d.wnids[0]}.json, image 2'


def missing_image(d):
  path, name = d.image(0)
  path.unlink()
  return name


def half_image(d):
  path, name = d.image(0)
  path.write_bytes(path.read_bytes()[:600])
  return name


def larger_image(d):
  path, name = d.image(0)
  Image.new('RGB', (120, 100)).save(path, 'JPEG')
  return name


def turned_image(d):
  path, name = d.image(0)
  d.edit(0, lambda data: data['images'][1].update(width=96, height=50))
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.new('RGB', (50, 96)).save(path, 'JPEG', exif=exif)
  return name


def turned_by_exif_alone(d):
  path, name = d.image(0)
  exif = Image.Exif()
  exif[0x0112] = 3
  Image.new('RGB', (96, 96)).save(path, 'JPEG', exif=exif)
  return name


def png_inside(d):
  path, name = d.image(0)
  Image.new('RGB', (96, 96)).save(path, 'PNG')
  return name


def sixteen_bits(d):
  path, name = d.image(0)
  Image.fromarray(np.full((96, 96), 257, np.uint16)).save(path, 'PNG')
  return name


def four_colours(d):
  path, name = d.image(0)
  Image.new('CMYK', (96, 96)).save(path, 'JPEG')
  return name


def no_outline(d):
  return d.entry(0, segmentation=[])


def text_outline(d):
  return d.entry(0, segmentation='polygon')


def words_in_polygon(d):
  return d.entry(0, segmentation=[['a', 2, 3, 4, 5, 6]])


def short_polygon(d):
  return d.entry(0, segmentation=[[1, 2, 3, 4]])


def odd_polygon(d):
  return d.entry(0, segmentation=[[1, 2, 3, 4, 5, 6, 7]])


def endless_polygon(d):
  return d.entry(0, segmentation=[[1, 2, float('inf'), 4, 5, 6]])


def far_polygon(d):
  return d.entry(0, segmentation=[[1, 2, 1e308, 4, 5, 6]])


def giant(d):
  _, name = d.image(0)
  d.edit(0, lambda data: data['images'][1].update(height=1_000_000))
  return name


def nothing_left(d):
  return d.entry(0, segmentation=[[1, 2]])


SQUARE = [10, 10, 40, 10, 40, 40, 10, 40]


def two_polygons(d):
  return d.entry(0, segmentation=[SQUARE, [50, 50, 60, 50, 60, 60]])


def flat_polygon(d):
  return d.entry(0, segmentation=SQUARE)


def runs(d):
  size = 96 * 96
  return d.entry(
    0, segmentation={'counts': [960, 96, size - 1056], 'size': [96, 96]}
  )


def unreadable_runs(d):
  return d.entry(0, segmentation={'counts': '\x01', 'size': [96, 96]})


def runs_of_another_size(d):
  return d.entry(0, segmentation={'counts': [9], 'size': [3, 3]})


def runs_too_short(d):
  return d.entry(0, segmentation={'counts': [3, 4], 'size': [96, 96]})


def outside(d):
  return d.entry(0, segmentation=[[50, 50, 140, 50, 140, 80]], bbox=None)


def no_pixel(d):
  ring = [10.1, 10.1, 10.2, 10.1, 10.2, 10.2]
  where = d.entry(0, segmentation=[ring], bbox=None)
  return where.rpartition(' ')[2]


def box_elsewhere(d):
  return d.entry(0, bbox=[0, 0, 500, 3])


def box_of_words(d):
  return d.entry(0, bbox=['here', 1, 2, 3])


def text_category(d):
  _, data = d.json(0)
  return d.entry(0, category_id=str(data['annotations'][2]['category_id']))


def other_object(d):
  d.index(lambda e: e[0].update({'object name': 'cart'}))
  return d.wnids[0]


def circle(d):
  return d.including(0, 'hub:wheel\nwheel:hub')


def in_itself(d):
  return d.including(0, 'hub:hub')


def unknown_part(d):
  return d.including(0, 'hub:spoke')


def two_colons(d):
  return d.including(0, 'hub:wheel:body')


def container_missing(d):
  def drop(data):
    wheel = next(
      c['id'] for c in data['categories'] if c['name'] == 'wagon wheel'
    )
    first = data['images'][0]['id']
    data['annotations'] = [
      a
      for a in data['annotations']
      if (a['image_id'], a['category_id']) != (first, wheel)
    ]

  d.edit(0, drop)
  return d.json(0)[1]['images'][0]['file_name']


def undeclared(d):
  (d.folder / 'including' / f'{d.wnids[0]}.txt').unlink()
  return d.wnids[0]


def hidden(d):
  # The same outline twice: of equal areas the name decides, none of body shows.
  def cover(data):
    numbers = {c['name']: c['id'] for c in data['categories']}
    first = data['images'][0]['id']
    data['annotations'] = [
      a for a in data['annotations'] if a['image_id'] != first
    ] + [
      {
        'id': 9000 + i,
        'image_id': first,
        'category_id': numbers[f'wagon {part}'],
        'segmentation': [SQUARE],
      }
      for i, part in enumerate(('body', 'handle'))
    ]

  d.edit(0, cover)
  return d.json(0)[1]['images'][0]['file_name']


def bare_image(d):
  def drop(data):
    first = data['images'][0]['id']
    data['annotations'] = [
      a for a in data['annotations'] if a['image_id'] != first
    ]

  d.edit(0, drop)
  return d.json(0)[1]['images'][0]['file_name']


def discarded(d):
  _, name = d.image(0)
  (d.folder / 'discarded_data.json').write_text(json.dumps({'dark': [name]}))
  return name


def empty_class(d):
  shutil.rmtree(d.folder / 'imagenet' / 'train' / d.wnids[0])
  return f'json/{d.wnids[0]}.json'


def foreign_split(d):
  (d.folder / 'splits').mkdir()
  for name in ('train', 'validation', 'test'):
    (d.folder / 'splits' / f'{name}.txt').write_text('n0/n0_1.JPEG')
  return 'train.txt, line 1'


def changed_split(d):
  names = [
    image['file_name'] for i in range(12) for image in d.json(i)[1]['images']
  ]
  (d.folder / 'splits').mkdir()
  for name, some in zip(
    ('train', 'validation', 'test'), (names, [], []), strict=True
  ):
    (d.folder / 'splits' / f'{name}.txt').write_text('\n'.join(some))
  (d.folder / 'splits' / 'hash.txt').write_text('0' * 64)
  return 'hash.txt'


def partial_split(d):
  name = d.image(0)[1]
  (d.folder / 'splits').mkdir()
  for split, text in (('train', name), ('validation', ''), ('test', '')):
    (d.folder / 'splits' / f'{split}.txt').write_text(text)
  return 'splits/'


def no_copy(d):
  shutil.rmtree(d.folder / 'imagenet')
  return str(d.folder)


# defect -> (kind of finding, exit status)
DEFECTS = {
  stray: ('stray file in json/', 1),
  truncated: ('file that cannot be read', 1),
  no_utf8: ('file that cannot be read', 1),
  no_class_of_index: ('classes of category_name.json and json/ differ', 1),
  no_key_in_index: ('broken entry in category_name.json', 1),
  other_parts_in_index: (
    'parts of category_name.json and the class file differ',
    1,
  ),
  other_order_in_index: ('order of parts differs in category_name.json', 0),
  containment_of_nothing: ('containment file of no class', 0),
  no_annotations: ('list missing, empty or of the wrong kind', 1),
  word_as_category: ('id or size that is no integer', 1),
  negative_size: ('id or size that is no integer', 1),
  second_image: ('second image with the same id or name', 1),
  second_annotation: ('second annotation with the same id', 1),
  second_category_id: ('two categories with one id', 1),
  second_category_name: ('two categories with one name', 1),
  category_without_name: ('category without a name', 1),
  too_many_parts: ('more parts than a mask can hold', 1),
  unknown_image: ('annotation of an unknown image', 1),
  unknown_category: ('annotation of an unknown category', 1),
  climbing_name: ('file_name of another form or class', 1),
  name_of_another_class: ('file_name of another form or class', 1),
  missing_image: ('image not in the copy', 1),
  half_image: ('image that cannot be decoded', 1),
  larger_image: ('image of another size', 1),
  turned_image: ('image with its sides swapped', 1),
  turned_by_exif_alone: ('image with an EXIF rotation', 0),
  png_inside: ('image that is no JPEG inside', 0),
  sixteen_bits: ('image of 16 bits', 0),
  four_colours: ('image that is not stored in RGB', 0),
  no_outline: ('empty segmentation', 1),
  text_outline: ('segmentation of an unknown form', 1),
  words_in_polygon: ('polygon that is no list of numbers', 1),
  short_polygon: ('polygon with too few numbers', 1),
  odd_polygon: ('polygon with an odd count of numbers', 1),
  endless_polygon: ('polygon with a non-finite number', 1),
  far_polygon: ('polygon out of bounds', 1),
  giant: ('image too large', 1),
  nothing_left: ('annotation without a usable outline', 1),
  two_polygons: ('annotation with several polygons', 0),
  flat_polygon: ('flat polygon list', 0),
  runs: ('RLE segmentation', 0),
  unreadable_runs: ('RLE that cannot be read', 1),
  runs_of_another_size: ('RLE of another size than its image', 1),
  runs_too_short: ('RLE whose runs do not add up', 1),
  outside: ('polygon clipped at the image border', 0),
  no_pixel: ('annotation covers no pixel', 0),
  box_elsewhere: ('bbox away from its polygons', 0),
  box_of_words: ('bbox that is not four numbers', 0),
  text_category: ('category_id stored as text', 0),
  other_object: ('part name without the object', 0),
  circle: ('circle of containments', 1),
  in_itself: ('part contained in itself', 1),
  unknown_part: ('containment of an unknown part', 1),
  two_colons: ('line that is no child:parent', 1),
  container_missing: ('contained part without its container', 0),
  undeclared: ('pixels shared by parts without a declared relation', 0),
  hidden: ('part hidden by others', 0),
  bare_image: ('image without annotations', 0),
  discarded: ('annotated image listed as discarded', 0),
  empty_class: ('class without usable images', 1),
  foreign_split: ('split files that do not fit', 1),
  changed_split: ('split files that do not fit', 1),
  partial_split: ('image in no split file', 0),
  no_copy: ('images not looked at', 0),
}


def found(checked):
  return {kind.name: kind for kind in checked.kinds}


def test_the_drawn_release_is_sound(sound):
  checked = check.check(sound)
  assert checked.sound
  assert not checked.of_weight('warning')
  # Its star is one part, which has the object's name.
  assert set(found(checked)) <= {
    'whole-object part',
    'annotation with several polygons',
    'pixels shared by parts without a declared relation',
  }
  assert checked.numbers['images'] == 12 * FEW['annotated']


@pytest.mark.parametrize('defect', DEFECTS, ids=lambda f: f.__name__)
def test_a_defect_is_found_by_kind_and_place(
  defect, sound, tmp_path, monkeypatch, capsys
):
  folder = pathlib.Path(shutil.copytree(sound, tmp_path / 'release'))
  before = found(check.check(folder))
  where = defect(Damage(folder))
  kind, status = DEFECTS[defect]
  pages = [tmp_path / name for name in ('report.json', 'report.html')]
  words = [f'--json={pages[0]}', f'--html={pages[1]}']
  assert check.main([str(folder), *words]) == status
  report = json.loads(pages[0].read_text())
  assert report['sound'] is (status == 0)
  row = {row['kind']: row for row in report['kinds']}[kind]
  assert kind not in before or row['count'] > before[kind].count
  assert any(
    where in f'{e["where"]}: {e["detail"]}' or where == e['wnid']
    for e in row['examples']
  ), row['examples']
  assert kind in capsys.readouterr().out
  html = pages[1].read_text()
  assert kind in html and 'src="http' not in html
  with_image = any(example['image'] for example in row['examples'])
  assert ('data:image/jpeg' in html) or not with_image


def test_every_guard_has_a_planted_defect():
  planted = {kind for kind, _ in DEFECTS.values()}
  elsewhere = {
    'class missing',
    'class that is not of ImageNet-1K',
    'class without 100 images',
    'classes differ from the expected number',
    'images differ from the expected number',
    'parts differ from the expected number',
    'masks differ from the expected number',
    'whole-object part',
    'part mask that its PNG changes',
  }
  assert not planted & elsewhere
  assert planted | elsewhere == set(GUARDS)


def test_all_defects_of_a_release_are_found_at_once(sound, tmp_path):
  folder = pathlib.Path(shutil.copytree(sound, tmp_path / 'release'))
  damage = Damage(folder)
  wnids = damage.wnids
  several = (unknown_category, missing_image, two_colons, bare_image, truncated)
  for number, defect in enumerate(several):
    damage.wnids = wnids[number:]
    defect(damage)
  kinds = found(check.check(folder))
  for number, defect in enumerate(several):
    assert wnids[number] in kinds[DEFECTS[defect][0]].classes


def test_a_complete_release_has_the_classes_and_totals_of_imagenet(sound):
  kinds = found(check.check(sound, full=True))
  assert kinds['class missing'].count == 1000
  assert kinds['class that is not of ImageNet-1K'].count == 12
  assert kinds['class without 100 images'].count == 12
  for name in ('classes', 'images', 'parts', 'masks'):
    example = kinds[f'{name} differ from the expected number'].examples[0]
    assert str(check_release.PUBLISHED[name]) in example.detail


def test_expected_totals_are_compared(sound, capsys):
  assert check.main([str(sound), '--expect=classes=12,images=72']) == 0
  assert check.main([str(sound), '--expect=masks=1']) == 0
  assert 'masks instead of the expected 1' in capsys.readouterr().out
  assert check.main([str(sound), '--expect=images=71']) == 1
  assert '72 images instead of the expected 71' in capsys.readouterr().out
  with pytest.raises(SystemExit):
    check.main([str(sound), '--expect=pictures=3'])


def test_a_mask_that_its_png_changes_is_found(sound, monkeypatch):
  real = masks.encode
  monkeypatch.setattr(masks, 'encode', lambda mask: real(mask // 2))
  kinds = found(check.check(sound))
  assert kinds['part mask that its PNG changes'].count == 72
  assert 'whole-object part' in kinds


def test_the_real_release_has_what_its_readme_admits(pin_real):
  checked = check.check(pin_real)
  assert checked.sound
  kinds = found(checked)
  # One class stores category_id as text; some contained parts lack containers.
  assert list(kinds['category_id stored as text'].classes) == ['n02958343']
  assert kinds['contained part without its container'].classes == {
    'n02958343': 72,
    'n03930630': 11,
  }
  assert checked.numbers == {
    'classes': 7,
    'parts': 62,
    'images': 756,
    'masks': 6681,
  }
  assert {k.name for k in checked.of_weight('warning')} <= {
    'bbox away from its polygons'
  }


def test_there_must_be_a_release(tmp_path, capsys):
  assert tools.main(['check', str(tmp_path / 'absent')]) == 2
  assert 'does not exist' in capsys.readouterr().err
  (tmp_path / 'json').mkdir()
  assert check.main([str(tmp_path)]) == 2
  assert 'no json/<wnid>.json' in capsys.readouterr().err


def test_a_named_copy_must_be_there(sound, tmp_path, capsys):
  assert check.main([str(sound), f'--imagenet_dir={tmp_path}']) == 2
  assert 'no ImageNet copy' in capsys.readouterr().err


def test_pictures_show_what_is_in_question(sound, tmp_path):
  folder = pathlib.Path(shutil.copytree(sound, tmp_path / 'release'))
  Damage(folder).entry(0, bbox=[0, 0, 500, 3])
  checked = check.check(folder)
  kind = found(checked)['bbox away from its polygons']
  from pinpp_jax.report.evidence import Evidence

  uri = Evidence(checked.release, checked.copy).picture(kind.examples[0])
  import base64

  data = base64.b64decode(uri.partition(',')[2])
  pixels = np.asarray(Image.open(io.BytesIO(data)).convert('RGB'), np.int32)
  red = (pixels[..., 0] > 200) & (pixels[..., 1:] < 90).all(axis=-1)
  yellow = (pixels[..., :2] > 180).all(axis=-1) & (pixels[..., 2] < 90)
  assert red.sum() > 50 and yellow.sum() > 50
