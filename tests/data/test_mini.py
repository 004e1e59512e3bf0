"""The mini data set: the release's layout, true masks, repeatable bytes."""

import collections
import json
import pathlib

import numpy as np
from PIL import Image
from pycocotools import mask as coco
import pytest

from pinpp_jax import errors
from pinpp_jax.data.mini import drawn_release, trace
from pinpp_jax.data.mini import scene as scene_lib
from pinpp_jax.data.mini import shapes as shapes_lib

TINY = dict(annotated=10, unannotated=4, validation=3, classes=3)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
  path = tmp_path_factory.mktemp('mini') / 'data'
  drawn_release.render(path, **TINY)
  return path


def tree(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def fill(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
  encoded = coco.frPyObjects(polygons, height, width)
  return coco.decode(coco.merge(encoded)).astype(bool)


# --- Outlines -----------------------------------------------------------------


@pytest.mark.parametrize('density', [0.05, 0.3, 0.5, 0.7, 0.95, 1.0])
@pytest.mark.parametrize('shape', [(1, 1), (7, 5), (24, 31)])
def test_filling_the_outlines_of_any_mask_gives_the_mask(density, shape):
  rng = np.random.default_rng(int(100 * density))
  for _ in range(20):
    mask = rng.random(shape) < density
    polygons = trace.polygons(mask)
    if mask.any():
      np.testing.assert_array_equal(fill(polygons, *shape), mask)
    else:
      assert polygons == []


def test_a_ring_with_an_island_needs_two_outlines():
  mask = np.zeros((9, 9), dtype=bool)
  mask[1:8, 1:8] = True
  mask[2:7, 2:7] = False
  mask[4, 4] = True
  polygons = trace.polygons(mask)
  assert len(polygons) == 2
  np.testing.assert_array_equal(fill(polygons, 9, 9), mask)


def test_pixels_that_meet_at_a_corner_share_an_outline():
  assert len(trace.polygons(np.eye(5, dtype=bool))) == 1
  assert len(trace.polygons(np.eye(5, dtype=bool)[::-1])) == 1


def test_a_rectangle_has_four_corners():
  mask = np.zeros((6, 8), dtype=bool)
  mask[2:5, 1:7] = True
  (polygon,) = trace.polygons(mask)
  points = set(zip(polygon[::2], polygon[1::2], strict=True))
  assert len(polygon) == 8
  assert points == {(1, 2), (7, 2), (7, 5), (1, 5)}


# --- Scenes -------------------------------------------------------------------


@pytest.mark.parametrize('number', range(len(shapes_lib.KINDS)))
def test_every_class_keeps_its_word(number):
  """Drawn parts are declared, and lie inside what is declared."""
  kind = shapes_lib.KINDS[number]
  seen = set()
  for index in range(10):
    shapes = kind.draw(np.random.default_rng(index))
    for at, shape in enumerate(shapes):
      assert shape.part in kind.parts
      parent = None if shape.inside is None else shapes[shape.inside].part
      assert parent == kind.inside.get(shape.part)
      assert shape.inside is None or shape.inside < at
      seen.add(shape.part)
  assert seen == set(kind.parts)
  assert 1 <= len(kind.parts) <= 6
  assert len(set(kind.parts)) == len(kind.parts)


@pytest.mark.parametrize('number', range(len(shapes_lib.KINDS)))
def test_painting_annotations_gives_the_truth(number):
  """Parents first, then children: the release's rule, on filled polygons."""
  kind = shapes_lib.KINDS[number]
  one = drawn_release._Class(number=number, kind=kind, seed=3, size=96)
  share = []
  for index in range(4):
    scene = one.scene(0, index)
    entries = list(drawn_release._entries(kind, scene))
    painted = np.zeros((96, 96), dtype=np.uint8)
    for nested in (False, True):
      for entry in entries:
        place = entry['category_id']
        if (kind.parts[place - 1] in kind.inside) == nested:
          painted[fill(entry['segmentation'], 96, 96)] = place
    np.testing.assert_array_equal(
      painted, drawn_release.local_mask(kind, scene)
    )
    assert len(entries) == len(scene.shapes) > 0
    share.append((painted > 0).mean())
  assert 0.1 < np.mean(share) < 0.7


def test_a_container_covers_what_it_contains():
  kind = shapes_lib.KINDS[0]
  one = drawn_release._Class(number=0, kind=kind, seed=0, size=96)
  checked = 0
  for index in range(10):
    scene = one.scene(0, index)
    for at, shape in enumerate(scene.shapes):
      if shape.inside is not None:
        outer = scene.visible(shape.inside)
        assert outer[scene.visible(at)].all()
        assert outer.sum() > scene.visible(at).sum()
        checked += 1
  assert checked > 10


def test_occluded_pixels_belong_to_no_part(monkeypatch):
  """The same scene with its occluder out of the way shows what it hid."""
  kind, step = shapes_lib.KINDS[1], scene_lib.OVERSAMPLING
  layers, occluder = scene_lib._layers, scene_lib._occluder
  drawn = []

  def spy(*args, **kwargs):
    drawn.append(layers(*args, **kwargs))
    return drawn[-1]

  def scene(index):
    rng = np.random.default_rng((1, index))
    return scene_lib.draw(kind, rng=rng, size=48, background=0)

  monkeypatch.setattr(scene_lib, '_layers', spy)
  hidden = 0
  for index in range(40):
    monkeypatch.setattr(scene_lib, '_occluder', occluder)
    seen = scene(index)
    ids, names = drawn[-1]
    monkeypatch.setattr(scene_lib, '_occluder', lambda rng: occluder(rng) - 9)
    free = scene(index)
    front = np.zeros((48, 48), dtype=bool)
    if names[-1] == 'occluder':
      front = ids[step // 2 :: step, step // 2 :: step] == len(names) - 1
    assert not seen.instance[front].any()
    same = (seen.instance > 0) == (free.instance > 0)
    assert same[~front].all()
    hidden += bool(free.instance[front].any())
  assert hidden >= 5


def test_colours_say_nothing_about_the_class():
  """The average colour of the object is alike for all classes."""
  means = []
  for number, kind in enumerate(shapes_lib.KINDS):
    one = drawn_release._Class(number=number, kind=kind, seed=0, size=32)
    scenes = [one.scene(0, index) for index in range(60)]
    means.append(
      np.mean([s.image[s.instance > 0].mean(0) for s in scenes], axis=0)
    )
  # 60 images: the standard error of a channel's mean is about 7 of 255.
  assert np.std(means, axis=0).max() < 16


def test_the_background_agrees_in_training_and_never_in_validation(monkeypatch):
  used = collections.defaultdict(list)

  def draw(kind, *, background, **_):
    used[kind.name].append(background)

  monkeypatch.setattr(scene_lib, 'draw', draw)
  agreement = []
  for number, kind in enumerate(shapes_lib.KINDS):
    one = drawn_release._Class(number=number, kind=kind, seed=0, size=32)
    for index in range(100):
      one.scene(0, index)
      agreement.append(used[kind.name][-1] == number)
    used.clear()
    for index in range(100):
      one.scene(1, index)
    assert number not in used[kind.name]
    assert len(set(used[kind.name])) == len(scene_lib.PATTERNS) - 1
  assert len(scene_lib.PATTERNS) == len(shapes_lib.KINDS)
  assert abs(np.mean(agreement) - drawn_release.AGREEMENT) < 0.04


# --- The folder ---------------------------------------------------------------


def test_the_class_files_describe_the_annotated_images(folder):
  files = sorted((folder / 'json').glob('*.json'))
  assert [path.stem for path in files] == [f'n9900000{i}' for i in (1, 2, 3)]
  for path in files:
    content = json.loads(path.read_text())
    assert len(content['images']) == TINY['annotated']
    assert [image['id'] for image in content['images']] == list(range(1, 11))
    names = [image['file_name'] for image in content['images']]
    assert names != sorted(names) and len(set(names)) == 10
    for image in content['images']:
      with Image.open(folder / 'imagenet/train' / image['file_name']) as opened:
        assert opened.format == 'JPEG'
        assert opened.size == (image['width'], image['height']) == (96, 96)
    ids = {category['id'] for category in content['categories']}
    assert {a['category_id'] for a in content['annotations']} == ids
    assert {a['image_id'] for a in content['annotations']} == set(range(1, 11))
    numbers = [a['id'] for a in content['annotations']]
    assert len(set(numbers)) == len(numbers)
    for entry in content['annotations']:
      mask = fill(entry['segmentation'], 96, 96)
      rows, columns = np.nonzero(mask)
      assert entry['area'] == mask.sum() >= scene_lib.SMALLEST_PART
      low, high = (columns.min(), rows.min()), (columns.max(), rows.max())
      extent = [h - a + 1 for a, h in zip(low, high, strict=True)]
      assert entry['bbox'] == [*low, *extent]
      assert all(len(p) >= 6 and len(p) % 2 == 0 for p in entry['segmentation'])


def test_the_index_files_agree_with_the_class_files(folder):
  index = json.loads((folder / 'category_name.json').read_text())
  for entry in index:
    path = folder / 'json' / entry['file name']
    categories = json.loads(path.read_text())['categories']
    assert entry['part name'] == [one['name'] for one in categories]
    if len(categories) == 1:
      assert entry['part name'] == [entry['object name']]
    else:
      for name in entry['part name']:
        assert name.startswith(entry['object name'] + ' ')
  assert len(index) == TINY['classes']
  assert min(len(entry['part name']) for entry in index) == 1


def test_nesting_is_in_bare_names(folder):
  relations = {
    path.stem: path.read_bytes() for path in (folder / 'including').iterdir()
  }
  assert relations == {'n99000001': b'hub:wheel', 'n99000003': b'eye:body'}


def test_nesting_has_windows_line_ends(tmp_path):
  few = dict(annotated=1, unannotated=0, validation=0, size=32)
  drawn_release.render(tmp_path / 'all', **few)
  content = (tmp_path / 'all/including/n99000006.txt').read_bytes()
  assert content == b'door:wall\r\nwindow:wall'


def test_truth_is_kept_of_exactly_the_images_without_annotation(folder):
  annotated = set()
  for path in (folder / 'json').glob('*.json'):
    images = json.loads(path.read_text())['images']
    annotated |= {image['file_name'].split('.')[0] for image in images}
  train, val, truth = (
    {str(p.relative_to(folder / of).with_suffix('')) for p in found}
    for of, found in (
      (of, (folder / of).glob('*/*'))
      for of in ('imagenet/train', 'imagenet/val', 'truth')
    )
  )
  assert annotated < train
  assert truth == (train | val) - annotated
  assert len(val) == 9 and len(train) == 3 * (10 + 4 + 1)
  for name in truth:
    with Image.open(folder / 'truth' / f'{name}.png') as opened:
      assert opened.mode == 'L' and opened.size == (96, 96)
      parts = len(shapes_lib.KINDS[int(name[8]) - 1].parts)
      assert 1 <= np.asarray(opened).max() <= parts


def test_discarded_images_exist_and_are_not_annotated(folder):
  entries = json.loads((folder / 'discarded_data.json').read_text())
  assert len(entries) == 3
  for entry in entries:
    assert (folder / 'imagenet/train' / entry['file_name']).is_file()
    wnid = entry['file_name'].split('/')[0]
    assert entry['file_name'] not in (folder / f'json/{wnid}.json').read_text()


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
  drawn_release.render(tmp_path / 'again', **TINY)
  assert tree(tmp_path / 'again') == tree(folder)


def test_another_seed_gives_other_images(folder, tmp_path):
  drawn_release.render(tmp_path / 'other', **TINY | dict(seed=1, unannotated=0))
  before, after = tree(folder), tree(tmp_path / 'other')
  name = 'imagenet/val/n99000002/mini_val_00100001.JPEG'
  assert before[name] != after[name]


def test_an_image_does_not_depend_on_how_many_there_are(folder, tmp_path):
  fewer = dict(annotated=6, unannotated=3, validation=2, classes=2)
  drawn_release.render(tmp_path / 'fewer', **fewer)
  before, after = tree(folder), tree(tmp_path / 'fewer')
  for number in (1, 2):
    for n in range(1, 10):
      name = f'imagenet/train/n9900000{number}/n9900000{number}_{n}.JPEG'
      assert before[name] == after[name]
    for n in (1, 2):
      stem = f'n9900000{number}/mini_val_00{number - 1}0000{n}'
      for name in (f'imagenet/val/{stem}.JPEG', f'truth/{stem}.png'):
        assert before[name] == after[name]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
  def fail(*_, **__):
    raise OSError('disk full')

  monkeypatch.setattr(drawn_release, '_write_validation', fail)
  with pytest.raises(OSError, match='disk full'):
    drawn_release.render(tmp_path / 'data', **TINY)
  assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused(folder):
  before = tree(folder)
  with pytest.raises(errors.UserError, match='exists already'):
    drawn_release.render(folder, **TINY)
  assert tree(folder) == before


@pytest.mark.parametrize(
  'mistake',
  [dict(classes=13), dict(classes=0), dict(annotated=0), dict(size=8)],
)
def test_numbers_out_of_range_are_named(mistake, tmp_path):
  with pytest.raises(errors.UserError, match=next(iter(mistake))):
    drawn_release.render(tmp_path / 'data', **TINY | mistake)
  assert list(tmp_path.iterdir()) == []
