"""Regions read back from built data sets, against the masks beside them."""

import dataclasses

import numpy as np
import pytest

from pinpp_jax.data import labels
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read import annotated
from pinpp_jax.data.read.annotated import DataSet
from pinpp_jax.data.release import painting
from pinpp_jax.errors import UserError


@pytest.fixture(scope='module')
def mini(mini_data):
  return DataSet(['pinpp_mini'], str(mini_data))


def repainted(image, table):
  record = labels.class_record(table, image.wnid)
  return annotated.repaint(image.regions, record, *image.mask.shape)


def test_painting_the_regions_again_gives_the_stored_mask(mini):
  assert mini.splits == ('train', 'test', 'validation')
  for images in mini.images().values():
    seen = list(images)
    assert len(images) == len(seen)
    for image in seen:
      np.testing.assert_array_equal(repainted(image, mini.labels), image.mask)


def test_runs_are_the_inverse_of_decoding():
  rng = np.random.default_rng(0)
  for share in (0, 0.01, 0.5, 1):
    pixels = rng.random((7, 5)) < share
    np.testing.assert_array_equal(
      painting.decode_rle(annotated.runs(pixels)), pixels
    )


def test_a_mask_as_regions_paints_itself(mini):
  image = next(iter(mini.images(['test'])['test']))
  drawn = annotated.of_mask(image.mask)
  again = dataclasses.replace(image, regions=drawn)
  np.testing.assert_array_equal(repainted(again, mini.labels), image.mask)
  assert [one.part for one in drawn] == sorted({*image.mask.ravel()} - {0})


def test_a_table_without_category_ids_is_refused(mini):
  parts = [dataclasses.replace(p, category_id=None) for p in mini.labels.parts]
  old = LabelTable(
    wnids=mini.labels.wnids,
    object_names=mini.labels.object_names,
    parts=tuple(parts),
  )
  image = next(iter(mini.images(['test'])['test']))
  entries = [region.entry for region in image.regions]
  record = labels.class_record(old, image.wnid)
  with pytest.raises(UserError, match='older version.*--overwrite'):
    annotated.regions(entries, record, *image.mask.shape)


def test_a_set_named_twice_and_an_unknown_split_are_refused(mini, mini_data):
  with pytest.raises(UserError, match='is in both'):
    DataSet(['pinpp_mini', 'pinpp_mini'], str(mini_data))
  with pytest.raises(UserError, match="no split 'val'; the splits are train"):
    mini.images(['val'])
  assert list(mini.images(['test', 'train'])) == ['train', 'test']
