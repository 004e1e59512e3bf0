"""Crops equal torchvision's rules written out, and are made exactly once."""

from concurrent import futures
import io
import json
import pickle
import types

import numpy as np
import PIL
from PIL import Image
import pytest

from pinpp_jax.data.imagenet import crops
from pinpp_jax.errors import UserError

WNID = 'n01440764'
SIZES = [(40, 30), (30, 40), (33, 33), (57, 31), (24, 91), (20, 18), (25, 40)]


def picture(seed, size):
  rng = np.random.default_rng(seed)
  # Smooth, so that the filters differ by more than noise.
  small = rng.integers(0, 256, (5, 4, 3), np.uint8)
  return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def resized(image, size, kind):
  """torchvision.transforms.Resize on a PIL image: an int or (height, width)."""
  kind = {'bilinear': Image.BILINEAR, 'bicubic': Image.BICUBIC}[kind]
  if isinstance(size, tuple):
    return image.resize(size[::-1], kind)
  width, height = image.size
  short, long = (width, height) if width <= height else (height, width)
  new_short, new_long = size, int(size * long / short)
  return image.resize(
    (new_short, new_long) if width <= height else (new_long, new_short), kind
  )


def center_crop(image, side):
  """torchvision.transforms.CenterCrop on a PIL image."""
  width, height = image.size
  if side > width or side > height:
    left = (side - width) // 2 if side > width else 0
    top = (side - height) // 2 if side > height else 0
    right = (side - width + 1) // 2 if side > width else 0
    bottom = (side - height + 1) // 2 if side > height else 0
    padded = Image.new('RGB', (left + width + right, top + height + bottom))
    padded.paste(image, (left, top))
    image = padded
    width, height = image.size
    if side == width and side == height:
      return image
  top = int(round((height - side) / 2.0))
  left = int(round((width - side) / 2.0))
  return image.crop((left, top, left + side, top + side))


ORACLES = {
  'res256crop224-bilinear': lambda x: center_crop(
    resized(x, 256, 'bilinear'), 224
  ),
  'res256crop224-bicubic': lambda x: center_crop(
    resized(x, 256, 'bicubic'), 224
  ),
  'res224': lambda x: resized(x, (224, 224), 'bilinear'),
  'crop288': lambda x: center_crop(x, 288),
  'res37crop32-bicubic': lambda x: center_crop(resized(x, 37, 'bicubic'), 32),
  'res32-bicubic': lambda x: resized(x, (32, 32), 'bicubic'),
  'crop32': lambda x: center_crop(x, 32),
  'crop19': lambda x: center_crop(x, 19),
}


@pytest.mark.parametrize('name', ORACLES)
@pytest.mark.parametrize('size', SIZES)
def test_pixels_are_torchvisions(name, size):
  image = picture(sum(size), size)
  found = crops.parse(name)(image)
  np.testing.assert_array_equal(found, np.asarray(ORACLES[name](image)))
  assert found.dtype == np.uint8


def test_photograph_sizes_round_as_torchvision():
  # Long sides whose product is no integer, and odd borders.
  for size in [(500, 375), (333, 500), (257, 256), (800, 531), (1001, 300)]:
    image = picture(size[0], size)
    for name in ('res256crop224-bilinear', 'res256crop224-bicubic'):
      expected = np.asarray(ORACLES[name](image))
      np.testing.assert_array_equal(crops.parse(name)(image), expected)


@pytest.mark.parametrize(
  'name',
  ['', 'res256', 'res256crop224', 'crop', 'Res256Crop224', 'res224-nearest'],
)
def test_unknown_names_are_refused(name):
  with pytest.raises(UserError, match='is not one of'):
    crops.parse(name)


@pytest.mark.parametrize('name', ['res20crop32-bicubic', 'crop0'])
def test_impossible_squares_are_refused(name):
  with pytest.raises(UserError, match='at least the side of its crop'):
    crops.parse(name)


def write_copy(root, flat=False):
  names = []
  folder = root / 'val' if flat else root / 'val' / WNID
  folder.mkdir(parents=True)
  for i, size in enumerate(SIZES):
    stream = io.BytesIO()
    picture(i, size).save(stream, 'JPEG')
    (folder / f'ILSVRC2012_val_{i:08d}.JPEG').write_bytes(stream.getvalue())
    names.append(f'{WNID}/ILSVRC2012_val_{i:08d}.JPEG')
  if flat:
    lines = [f'{name.split("/")[1]} {WNID}' for name in names]
    (root / 'val_labels.txt').write_text('\n'.join(lines))
  return names


@pytest.fixture
def copy(tmp_path):
  """A copy of ImageNet, and the names of its images, last first."""
  return tmp_path / 'imagenet', write_copy(tmp_path / 'imagenet')[::-1]


def make(folder, copy, names, **fields):
  fields = {
    'name': 'mine',
    'list_hash': 'a' * 64,
    'preprocessing': 'res37crop32-bicubic',
  } | fields
  return crops.of_list(folder, names=names, copy=copy, **fields)


def expected(copy, name):
  with Image.open(copy / 'val' / name) as image:
    return crops.parse('res37crop32-bicubic')(image.convert('RGB'))


class TestFile:
  def test_holds_the_crops_in_the_lists_order(self, copy, tmp_path):
    root, names = copy
    found = make(tmp_path / 'crops', root, names)
    assert len(found) == len(names)
    for i, name in enumerate(names):
      np.testing.assert_array_equal(found[i], expected(root, name))
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(again[3], found[3])
    # Worker processes get the place of the pixels, not the pixels.
    assert len(pickle.dumps(found)) < 2000

  def test_says_what_it_is(self, copy, tmp_path):
    root, names = copy
    about = make(tmp_path / 'crops', root, names).about
    assert about['list'] == 'mine' and about['list_hash'] == 'a' * 64
    assert about['preprocessing'] == 'res37crop32-bicubic'
    assert (about['resize'], about['crop'], about['filter']) == (
      37,
      32,
      'bicubic',
    )
    assert about['images'] == len(names) and len(about['sha256']) == 64
    assert about['pillow'] == PIL.__version__

  def test_a_flat_copy_gives_the_same(self, copy, tmp_path):
    root, names = copy
    write_copy(tmp_path / 'flat', flat=True)
    one = make(tmp_path / 'one', root, names)
    two = make(tmp_path / 'two', tmp_path / 'flat', names, threads=4)
    assert one.about['sha256'] == two.about['sha256']

  def test_is_made_once(self, copy, tmp_path, monkeypatch):
    root, names = copy
    first = make(tmp_path / 'crops', root, names)
    monkeypatch.setattr(crops, '_make', lambda *_: pytest.fail('made again'))
    assert make(tmp_path / 'crops', root, names).about == first.about
    # The images themselves are not needed any more.
    assert make(tmp_path / 'crops', None, names).about == first.about

  def test_other_conventions_and_lists_lie_beside_it(self, copy, tmp_path):
    root, names = copy
    first = make(tmp_path / 'crops', root, names)
    other = make(tmp_path / 'crops', root, names, preprocessing='crop32')
    fewer = make(tmp_path / 'crops', root, names[:3])
    assert len({x.path for x in (first, other, fewer)}) == 3
    assert make(tmp_path / 'crops', None, names).about == first.about

  def test_without_a_copy_there_must_be_one(self, copy, tmp_path):
    with pytest.raises(UserError, match=r'is not there yet.*data\.imagenet'):
      make(tmp_path / 'crops', None, copy[1])


def damage(found, how):
  if how == 'pixels':
    array = np.load(found.path, mmap_mode='r+')
    array[2, 3, 4] ^= 1
    array.flush()
  elif how == 'cut':
    found.path.write_bytes(found.path.read_bytes()[:-100])
  elif how == 'sidecar':
    found.path.with_suffix('.json').unlink()
  elif how == 'another list':
    path = found.path.with_suffix('.json')
    path.write_text(json.dumps(dict(found.about, list_hash='b' * 64)))


@pytest.mark.parametrize('how', ['pixels', 'cut', 'sidecar', 'another list'])
def test_what_does_not_fit_is_made_again(how, copy, tmp_path, caplog):
  root, names = copy
  first = make(tmp_path / 'crops', root, names)
  damage(first, how)
  with pytest.raises(UserError, match='without an ImageNet copy'):
    make(tmp_path / 'crops', None, names)
  with caplog.at_level('INFO'):
    again = make(tmp_path / 'crops', root, names)
  assert again.about == first.about
  assert f'cutting {len(names)} images' in caplog.text
  np.testing.assert_array_equal(again[2], expected(root, names[2]))


def test_crops_of_another_copy_are_made_again(copy, tmp_path):
  root, names = copy
  make(tmp_path / 'crops', root, names)
  (tmp_path / 'other').mkdir()
  root.rename(tmp_path / 'other' / 'imagenet')
  found = make(tmp_path / 'crops', tmp_path / 'other' / 'imagenet', names)
  assert found.about['imagenet'] == str(tmp_path / 'other' / 'imagenet')


class TestMistakes:
  def test_absent_images_are_named_and_counted(self, copy, tmp_path):
    root, names = copy
    more = [f'{WNID}/ILSVRC2012_val_{i:08d}.JPEG' for i in range(900, 907)]
    with pytest.raises(UserError) as error:
      make(tmp_path / 'crops', root, [*names, *more])
    message = str(error.value)
    assert message.startswith('7 of the 14 images') and '\n' not in message
    assert more[0] in message and more[4] in message and message.count('90') < 9
    assert not list((tmp_path / 'crops').glob('*.npy'))

  def test_an_image_of_another_class_is_absent(self, copy, tmp_path):
    root, names = copy
    wrong = names[0].replace(WNID, 'n02119789')
    with pytest.raises(UserError, match='or of another class there: n02119789'):
      make(tmp_path / 'crops', root, [wrong])

  def test_an_unreadable_image_is_named(self, copy, tmp_path):
    root, names = copy
    path = root / 'val' / names[2]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=names[2]):
      make(tmp_path / 'crops', root, names)
    left = {p.suffix for p in (tmp_path / 'crops').iterdir()}
    assert left == {'.lock'}


def test_places_that_cannot_hold_them(copy, tmp_path, monkeypatch):
  root, names = copy
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='set data.data_dir to a folder where'):
    make(tmp_path / 'file' / 'crops', root, names)
  full = types.SimpleNamespace(free=32 * 32 * 3 * len(names) - 1)
  monkeypatch.setattr(crops.shutil, 'disk_usage', lambda path: full)
  with pytest.raises(UserError, match='GB left'):
    make(tmp_path / 'crops', root, names)


def test_two_runs_make_it_once(copy, tmp_path, monkeypatch):
  root, names = copy
  made, calls = crops._make, []

  def count(*arguments):
    calls.append(1)
    return made(*arguments)

  monkeypatch.setattr(crops, '_make', count)
  with futures.ThreadPoolExecutor(4) as pool:
    found = list(
      pool.map(lambda _: make(tmp_path / 'crops', root, names), range(4))
    )
  assert len(calls) == 1
  assert len({x.about['sha256'] for x in found}) == 1


def test_progress_is_said_a_few_times(copy, tmp_path, caplog):
  root, names = copy
  with caplog.at_level('INFO'):
    make(tmp_path / 'crops', root, names)
  lines = caplog.text.count('images are cut')
  assert 0 < lines <= 10
