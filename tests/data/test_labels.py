"""The numbering of parts: derived, complete, and safe on disk."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from pinpp_jax.data import labels
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.release.findings import Findings
from pinpp_jax.data.release.reader import Release
from pinpp_jax.errors import UserError

DUMMY = pathlib.Path(__file__).parents[2] / 'datasets' / 'pinpp' / 'dummy_data'


@pytest.fixture
def table():
  return labels.from_classes(Release(DUMMY, Findings()))


def test_numbers_run_through_the_classes_in_order(table):
  assert table.num_classes == 2
  assert table.num_parts == 4
  assert [part.global_id for part in table.parts] == [1, 2, 3, 4]
  assert table.parts[1].name == 'tench fin'
  assert table.parts[1].generic_name == 'fin'
  assert table.parts[1].parent == ('tench body',)
  assert table.parts[1].count == 5
  assert table.first.tolist() == [1, 4]
  assert table.part_counts.tolist() == [3, 1]
  assert table.first.dtype == table.part_counts.dtype == np.int32
  assert table.max_parts == 3
  assert table.of_class('n04026417') == table.parts[3:]


def test_real_release_is_numbered_by_its_categories(pin_real):
  table = labels.from_classes(Release(pin_real, Findings()))
  assert table.part_counts.tolist() == [4, 18, 17, 15, 4, 2, 2]
  for wnid in table.wnids:
    data = json.loads((pin_real / 'json' / f'{wnid}.json').read_text())
    names = [category['name'] for category in data['categories']]
    assert [part.name for part in table.of_class(wnid)] == names


def test_saved_and_loaded_tables_are_equal(table, tmp_path):
  path = tmp_path / 'labels.json'
  table.save(path)
  loaded = LabelTable.load(path)
  assert loaded == table
  assert loaded.hash == table.hash
  assert [p.name for p in tmp_path.iterdir()] == ['labels.json']


def test_a_failed_save_leaves_the_old_table(table, tmp_path, monkeypatch):
  path = tmp_path / 'labels.json'
  table.save(path)
  before = path.read_bytes()

  def full(_):
    raise OSError('no space left')

  monkeypatch.setattr(labels.os, 'fsync', full)
  with pytest.raises(OSError, match='no space'):
    table.save(path)
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ['labels.json']


def test_hash_depends_on_names_and_order_only(table):
  def changed(**fields):
    parts = (*table.parts[:3], dataclasses.replace(table.parts[3], **fields))
    return dataclasses.replace(table, parts=parts).hash

  assert changed(count=0) == table.hash
  assert changed(generic_name='x') == table.hash
  assert changed(name='bag') != table.hash


def test_changed_or_foreign_files_are_refused(table, tmp_path):
  path = tmp_path / 'labels.json'
  with pytest.raises(UserError, match='labels.json'):
    LabelTable.load(path)
  table.save(path)
  path.write_text(path.read_text().replace('tench fin', 'tench tail'))
  with pytest.raises(UserError, match='hash'):
    LabelTable.load(path)
  path.write_text('{"parts": 3}')
  with pytest.raises(UserError, match='not a label table'):
    LabelTable.load(path)


@pytest.mark.parametrize(
  ('old', 'new'),
  [
    ('"tench body"\n   ]', '"tench eye"\n   ]'),  # A parent.
    ('"category_id": 1', '"category_id": 7'),
    ('"object_name": "tench"', '"object_name": "trout"'),
    ('"generic_name": "fin"', '"generic_name": "tail"'),
  ],
)
def test_everything_a_table_says_is_under_its_hash(table, tmp_path, old, new):
  path = tmp_path / 'labels.json'
  table.save(path)
  assert old in path.read_text()
  path.write_text(path.read_text().replace(old, new, 1))
  with pytest.raises(UserError, match='hash'):
    LabelTable.load(path)


@pytest.mark.parametrize('wnid', ['/tmp/x', '../x', '..', '', 'a/b', '.x', 5])
def test_no_class_leads_out_of_a_folder(table, tmp_path, wnid):
  path = tmp_path / 'labels.json'
  table.save(path)
  data = json.loads(path.read_text())
  data['classes'][0]['wnid'] = wnid
  for part in data['parts'][:3]:
    part['wnid'] = wnid
  del data['checksum']
  path.write_text(json.dumps(data))
  with pytest.raises(UserError):
    LabelTable.load(path)
  if isinstance(wnid, str):
    with pytest.raises(UserError, match='no wnid'):
      labels.class_only([wnid])


def test_gaps_in_the_numbering_are_refused(table):
  with pytest.raises(UserError, match='gaps'):
    dataclasses.replace(table, parts=table.parts[1:])
  with pytest.raises(UserError, match='sorted'):
    dataclasses.replace(table, wnids=table.wnids[::-1])


def test_classes_may_have_no_parts():
  table = labels.class_only(['n00000002', 'n00000001'], ['b', 'a'])
  assert table.wnids == ('n00000001', 'n00000002')
  assert table.object_names == ('a', 'b')
  assert table.num_parts == table.max_parts == 0
  assert table.part_counts.tolist() == [0, 0]
