import collections

import numpy as np
import pytest

from pinpp_jax.errors import UserError
from pinpp_jax.evals.segmentation import prior


def direct(split, table):
  """Returns the masks, position by position."""
  size = split['parts'].shape[1]
  wanted = np.zeros((table.num_classes, size, size), int)
  for k, i, j in np.ndindex(wanted.shape):
    seen = collections.Counter(
      parts[i, j]
      for parts, label, source in zip(
        split['parts'], split['label'], split['source'], strict=True
      )
      if label == k and source
    )
    most = max(seen.values(), default=0)
    wanted[k, i, j] = min((x for x, n in seen.items() if n == most), default=0)
  return wanted


@pytest.mark.parametrize('cell', [8, 2])
def test_equals_a_count_of_every_position(tiny, table, cell):
  split = tiny.split(table, cell=cell)
  wanted = direct(split, table)
  assert len(np.unique(wanted)) == table.num_parts + 1
  shuffled = np.random.default_rng(0).permutation(21)
  for size, order in ((8, None), (24, shuffled)):
    found = prior.masks(tiny.batches_of(split, size, order), table)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, wanted)


def batch(parts, label, source=1):
  return {
    'parts': np.array(parts, np.int32),
    'label': np.array(label, np.int32),
    'source': np.full(len(label), source, np.int32),
    'mask': np.ones(len(label), np.float32),
  }


def test_ties_and_classes_without_masks(table):
  found = prior.masks([batch([[[4]], [[3]], [[6]]], [1, 1, 3])], table)
  np.testing.assert_array_equal(found[:, 0, 0], [0, 3, 0, 6])
  found = prior.masks([batch([[[0]], [[3]]], [1, 1])], table)
  assert not found.any()
  assert not prior.masks([batch([[[4]]], [1], source=0)], table).any()
  with pytest.raises(UserError, match='training images'):
    prior.masks([], table)


def test_fine_labels_are_sampled_at_the_centres_of_its_cells(table):
  parts = np.random.default_rng(0).integers(3, 6, (1, 96, 96))
  found = prior.masks([batch(parts, [1])], table)
  at = [int((i + 0.5) * 96 / 64) for i in range(64)]
  np.testing.assert_array_equal(found[1], parts[0][at][:, at])
