"""Class-balanced sampling: every class as often as the largest."""

import numpy as np

from pinpp_jax.data.read.sources import Chosen, Source


def balanced(source: Source) -> Chosen:
  """Returns the source with the examples of small classes repeated.

  Every class has as many examples as the largest; how often two examples of a
  class are repeated differs by one at most. Reads every record once.
  """
  label = np.array([source[i]['label'] for i in range(len(source))])
  if not len(label):
    return Chosen(source, [])
  size = np.bincount(label).max()
  rows = [np.flatnonzero(label == k) for k in np.unique(label)]
  order = np.concatenate([np.resize(r, size) for r in rows])
  return Chosen(source, order.tolist())
