"""Lists of images: which are read, what they must be, and their classes."""

import hashlib
import io
import pickle

import numpy as np
from PIL import Image
import pytest

from pinpp_jax import data
from pinpp_jax.data import views
from pinpp_jax.data.imagenet import crops
from pinpp_jax.data.labels import class_only
from pinpp_jax.data.read import lists
from pinpp_jax.errors import UserError

# A thousand wnids, in another order than sorted, those that RobustBench's list
# leaves out among them.
ABSENT = ('n02066245', 'n03482405', 'n07875152')
WNIDS = tuple(f'n{10_000_000 + 7 * i}' for i in range(997))[::-1] + ABSENT
TABLE = class_only(WNIDS)


def line(wnid, number):
  return f'{wnid}/ILSVRC2012_val_{number:08d}.JPEG'


def rb5k():
  """As many images and classes as RobustBench's list, and no more like it."""
  present = [wnid for wnid in WNIDS if wnid not in ABSENT]
  return [line(present[i % 997], i + 1) for i in range(5000)]


def pin10k():
  return [line(WNIDS[i % 1000], i + 1) for i in range(10000)]


def read(tmp_path, lines, name='mine', **fields):
  path = tmp_path / 'list.txt'
  path.write_text('\n'.join(lines) + '\n')
  return lists.read(path, name=name, **fields)


class TestReading:
  def test_keeps_the_order_of_the_file(self, tmp_path):
    names = [line(WNIDS[0], 3), line(WNIDS[5], 1), line(WNIDS[2], 2)]
    assert read(tmp_path, names).names == tuple(names)

  def test_the_hash_is_that_of_the_sorted_file(self, tmp_path):
    names = [line(WNIDS[0], 3), line(WNIDS[5], 1), line(WNIDS[2], 2)]
    text = '\n'.join(sorted(names)) + '\n'
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert read(tmp_path, names).hash == expected
    assert read(tmp_path, names[::-1], list_hash=expected).hash == expected
    with pytest.raises(UserError, match=f'has the hash .*not .{expected}'):
      read(tmp_path, names[:2], list_hash=expected)

  def test_line_ends_and_a_byte_order_mark_do_not_matter(self, tmp_path):
    names = [line(WNIDS[0], 3), line(WNIDS[5], 1)]
    text = '\ufeff' + '\r\n'.join(names) + '\r\n\r\n'
    (tmp_path / 'dos.txt').write_bytes(text.encode())
    found = lists.read(tmp_path / 'dos.txt', name='mine')
    assert found.names == tuple(names)

  def test_malformed_lines_are_named_and_counted(self, tmp_path):
    bad = [
      'ILSVRC2012_val_00000001.JPEG',
      '/etc/passwd',
      f'{WNIDS[0]}/../x.JPEG',
    ]
    with pytest.raises(UserError) as error:
      read(tmp_path, [line(WNIDS[0], 9), *bad])
    assert 'has 3 lines' in str(error.value)
    assert "line 2: 'ILSVRC2012_val" in str(error.value)

  @pytest.mark.parametrize('wnid', [WNIDS[0], WNIDS[1]])
  def test_an_image_twice_is_named(self, tmp_path, wnid):
    with pytest.raises(
      UserError, match='1 images more than once: ILSVRC2012_v'
    ):
      read(tmp_path, [line(WNIDS[0], 9), line(WNIDS[0], 8), line(wnid, 9)])

  def test_nothing_to_read(self, tmp_path):
    with pytest.raises(UserError, match='is empty'):
      read(tmp_path, [''])
    with pytest.raises(UserError, match='rb5k is imagenet_test_image_ids.txt'):
      lists.read(tmp_path / 'absent.txt', name='rb5k')
    with pytest.raises(UserError, match='must start with a letter'):
      lists.read(tmp_path / 'absent.txt', name='../x')


class TestPublished:
  @pytest.mark.parametrize(
    ('name', 'made'), [('rb5k', rb5k), ('pin10k', pin10k)]
  )
  def test_what_is_known_of_it_holds(self, tmp_path, name, made):
    lists.check(read(tmp_path, made(), name), TABLE)

  @pytest.mark.parametrize(
    ('name', 'made'), [('rb5k', rb5k), ('pin10k', pin10k)]
  )
  def test_a_list_cut_short(self, tmp_path, name, made):
    with pytest.raises(UserError, match='different list, or was cut short'):
      read(tmp_path, made()[:-1], name)

  def test_of_other_classes(self, tmp_path):
    names = rb5k()
    names[0] = line(ABSENT[1], 1)
    with pytest.raises(UserError, match=r'no image of 2 classes'):
      lists.check(read(tmp_path, names, 'rb5k'), TABLE)

  def test_not_ten_of_each(self, tmp_path):
    names = pin10k()
    names[0] = line(WNIDS[1], 1)
    with pytest.raises(UserError, match='2 classes .*not have 10 images'):
      lists.check(read(tmp_path, names, 'pin10k'), TABLE)

  def test_of_files_with_other_names(self, tmp_path):
    names = [*rb5k()[1:], f'{WNIDS[0]}/mini_val_1.JPEG']
    with pytest.raises(UserError, match='line 5000'):
      read(tmp_path, names, 'rb5k')

  def test_fewer_classes_would_be_numbered_wrongly(self, tmp_path):
    present = class_only([w for w in WNIDS if w not in ABSENT])
    with pytest.raises(UserError, match='table has 997, so class indices'):
      lists.check(read(tmp_path, rb5k(), 'rb5k'), present)


def test_images_of_unknown_classes_are_named(tmp_path):
  names = [line(WNIDS[0], 1), line('n09999999', 2), line('n09999998', 3)]
  with pytest.raises(UserError, match='2 images whose class is not'):
    lists.check(read(tmp_path, names), TABLE)


class TestClasses:
  def test_are_numbered_in_the_order_of_wnids(self, tmp_path):
    path = tmp_path / 'LOC_synset_mapping.txt'
    path.write_text('n02119789 kit fox, a fox\nn01440764 tench, Tinca tinca\n')
    table = lists.class_table(path)
    assert table.wnids == ('n01440764', 'n02119789')
    assert table.object_names == ('tench', 'kit fox')
    path.write_text('n02119789\nn01440764\n')
    assert lists.class_table(path).hash == table.hash

  def test_may_be_those_of_a_label_table(self, tmp_path):
    TABLE.save(tmp_path / 'labels.json')
    assert lists.class_table(tmp_path / 'labels.json') == TABLE

  @pytest.mark.parametrize('text', ['', 'tench\n', 'n01440764\nn01440764 x\n'])
  def test_what_is_no_list_of_classes(self, tmp_path, text):
    (tmp_path / 'classes.txt').write_text(text)
    with pytest.raises(UserError, match='one wnid such as n01440764'):
      lists.class_table(tmp_path / 'classes.txt')

  def test_absent(self, tmp_path):
    with pytest.raises(UserError, match='Name a labels.json or a text file'):
      lists.class_table(tmp_path / 'absent.txt')


@pytest.fixture
def listed(tmp_path):
  """Four images of three of five classes, none of the first."""
  wnids = [f'n0000000{i}' for i in range(5)]
  names = [line(wnids[i], 70 + n) for n, i in enumerate((4, 1, 4, 3))]
  for i, name in enumerate(names):
    path = tmp_path / 'imagenet' / 'val' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(stream, 'JPEG')
    path.write_bytes(stream.getvalue())
  chosen = read(tmp_path, names)
  found = crops.of_list(
    tmp_path / 'crops',
    name=chosen.name,
    list_hash=chosen.hash,
    names=chosen.names,
    preprocessing='res37crop32-bilinear',
    copy=tmp_path / 'imagenet',
  )
  return lists.Listed(images=chosen, crops=found, labels=class_only(wnids))


class TestListed:
  def test_is_a_source(self, listed):
    rows = list(listed)
    assert [row['label'] for row in rows] == [4, 1, 4, 3]
    assert [row['wnid'][-1] for row in rows] == ['4', '1', '4', '3']
    assert all(row['source'] == 'none' for row in rows)
    assert rows[1]['file_name'] == listed.file_name(1)
    assert list(pickle.loads(pickle.dumps(listed))) == rows
    with pytest.raises(IndexError):
      listed[-1]

  def test_batches_hold_the_crops_pixel_by_pixel(self, listed, tmp_path):
    (batch,) = data.evaluation(listed, batch_size=6, image_size=32, resize=1.0)
    for i in range(4):
      name = listed.file_name(i)
      content = (tmp_path / 'imagenet' / 'val' / name).read_bytes()
      expected = crops.parse('res37crop32-bilinear')(views.decode(content, ''))
      np.testing.assert_array_equal(batch['image'][i], expected)
    np.testing.assert_array_equal(batch['label'], [4, 1, 4, 3, 0, 0])
    np.testing.assert_array_equal(batch['mask'], [1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(batch['index'], [0, 1, 2, 3, -1, -1])
    assert not batch['parts'].any() and not batch['source'].any()

  def test_ids_are_the_images_own(self, listed):
    (batch,) = data.evaluation(listed, batch_size=4, image_size=32, resize=1.0)
    np.testing.assert_array_equal(batch['id'], [70, 71, 72, 73])

  def test_says_what_a_result_must(self, listed):
    about = listed.about
    assert about['list'] == 'mine' and about['split_hash'] == about['list_hash']
    assert about['preprocessing'] == 'res37crop32-bilinear'
    assert about['images'] == 4
