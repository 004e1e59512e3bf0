"""Every class as often as the largest, and nothing left out."""

import collections

import numpy as np
import pytest

from pinpp_jax.data.read.balance import balanced


class Fake:
  """A source of labels alone."""

  labels = None

  def __init__(self, label):
    self.label = label

  def __len__(self):
    return len(self.label)

  def __getitem__(self, index):
    return {'label': self.label[index], 'index': index}

  def file_name(self, index):
    return str(index)


@pytest.mark.parametrize('sizes', [(5, 2, 1), (3, 3), (4, 0, 3), (1,)])
def test_classes_are_equal_and_examples_nearly(sizes):
  label = np.random.default_rng(0).permutation(
    np.repeat(np.arange(len(sizes)), sizes)
  )
  chosen = balanced(Fake(label.tolist()))
  seen = [chosen[i] for i in range(len(chosen))]
  classes = collections.Counter(row['label'] for row in seen)
  assert set(classes.values()) == {max(sizes)}
  times = collections.Counter(row['index'] for row in seen)
  assert set(times) == set(range(len(label)))
  for k in classes:
    own = [times[i] for i in times if label[i] == k]
    assert max(own) - min(own) <= 1


def test_nothing_stays_nothing():
  assert len(balanced(Fake([]))) == 0
