"""The canonical split, the files that override it, and their hash."""

import hashlib
import random

import pytest

from pinpp_jax.data.release import splits
from pinpp_jax.errors import UserError


def names(count, wnid='n00000001'):
  return [f'{wnid}/{wnid}_{i}.JPEG' for i in range(count)]


@pytest.mark.parametrize('count', range(1, 131))
def test_sizes_add_up_and_no_part_is_forgotten(count):
  train, validation, test = splits.sizes(count)
  assert train + validation + test == count
  assert train >= 1
  assert validation == test
  assert test == (0 if count < 3 else max(1, int(count / 10 + 0.5)))


def test_a_hundred_images_are_eighty_ten_ten():
  assert splits.sizes(100) == (80, 10, 10)


def test_split_follows_the_hash_of_the_name_and_nothing_else():
  files = names(100)
  by_hash = sorted(files, key=lambda f: hashlib.sha256(f.encode()).hexdigest())
  split = splits.canonical([files])
  assert split['train'] == tuple(by_hash[:80])
  assert split['validation'] == tuple(by_hash[80:90])
  assert split['test'] == tuple(by_hash[90:])
  shuffled = list(files)
  random.Random(0).shuffle(shuffled)
  assert splits.canonical([shuffled]) == split
  more = splits.canonical([files, names(30, 'n00000002')])
  assert set(split['test']) <= set(more['test'])


def write(folder, **lists):
  (folder / 'splits').mkdir(exist_ok=True)
  for name, lines in lists.items():
    text = '\r\n'.join(lines)
    (folder / 'splits' / f'{name}.txt').write_text(text)


def test_given_files_replace_the_canonical_split(tmp_path):
  files = names(5)
  assert splits.given(tmp_path, files) is None
  write(tmp_path, train=['# mine', *files[:3]], validation=[], test=files[3:4])
  split = splits.given(tmp_path, files)
  assert set(split['train']) == set(files[:3])
  assert split['validation'] == ()
  assert split['test'] == (files[3],)


def test_given_files_must_be_complete_known_and_disjoint(tmp_path):
  files = names(5)
  write(tmp_path, train=files[:3])
  with pytest.raises(UserError, match='validation.txt'):
    splits.given(tmp_path, files)
  write(tmp_path, validation=['n1/x.JPEG'], test=[])
  with pytest.raises(UserError, match='validation.txt, line 1.*no annotated'):
    splits.given(tmp_path, files)
  write(tmp_path, validation=files[2:4])
  with pytest.raises(UserError, match='already in train'):
    splits.given(tmp_path, files)


def test_given_files_must_match_a_given_hash(tmp_path):
  files = names(5)
  write(tmp_path, train=files[:3], validation=files[3:4], test=files[4:])
  good = splits.hash_of(splits.given(tmp_path, files))
  (tmp_path / 'splits' / 'hash.txt').write_text(f'{good}\n')
  assert splits.given(tmp_path, files)
  write(tmp_path, train=files[:2])
  with pytest.raises(UserError, match='hash'):
    splits.given(tmp_path, files)


def test_hash_tells_splits_apart_but_not_orders():
  files = names(4)
  one = {'train': files[:2], 'validation': files[2:3], 'test': files[3:]}
  same = dict(one, train=files[1::-1])
  other = dict(one, train=files[2:3], validation=files[:2])
  assert splits.hash_of(one) == splits.hash_of(same)
  assert splits.hash_of(one) != splits.hash_of(other)


def test_saved_splits_are_checked_when_they_are_read(tmp_path):
  split = splits.canonical([names(20)])
  splits.save(tmp_path, split, splits.CANONICAL)
  assert splits.load(tmp_path) == split
  path = tmp_path / splits.FILE
  path.write_text(path.read_text().replace('_7.JPEG', '_99.JPEG'))
  with pytest.raises(UserError, match='hash'):
    splits.load(tmp_path)
  path.write_text('{}')
  with pytest.raises(UserError, match='not a split file'):
    splits.load(tmp_path)
