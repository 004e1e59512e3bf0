"""Masks and confidences equal a computation pixel by pixel."""

import numpy as np
import pytest

from pinpp_jax.labelling.confidence import decide


def probabilities(parts=3, shape=(9, 14)):
  p = np.random.default_rng(1).random((*shape, parts + 1), np.float32)
  p[..., -1] *= 0.5  # The last part wins rarely.
  return p / p.sum(-1, keepdims=True)


def by_hand(p, min_confidence=0.0, min_area=0.0):
  mask = np.zeros(p.shape[:2], int)
  for y, x in np.ndindex(*mask.shape):
    mask[y, x] = max(range(p.shape[-1]), key=lambda i: (p[y, x, i], -i))
  confidence = np.mean([p[y, x, mask[y, x]] for y, x in np.ndindex(mask.shape)])
  sure = []
  for part in range(1, p.shape[-1]):
    wins = mask == part
    mean = p[..., part][wins].astype(float).mean() if wins.any() else 0
    if mean < min_confidence or wins.mean() < min_area:
      mask[wins], mean = 0, 0
    sure.append(mean)
  return mask, confidence, sure


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'min_confidence': 0.45},
    {'min_area': 0.2},
    {'min_confidence': 0.45, 'min_area': 0.2},
    {'min_confidence': 1.0},
  ],
)
def test_equals_a_computation_by_hand(options):
  p = probabilities()
  mask, confidence, sure = by_hand(p, **options)
  found = decide(np.moveaxis(p, -1, 0), **options)
  assert found.mask.dtype == np.uint8
  np.testing.assert_array_equal(found.mask, mask)
  assert found.confidence == pytest.approx(confidence, rel=1e-6)
  np.testing.assert_allclose(found.part_confidence, sure, rtol=1e-6)
  assert found.part_confidence.dtype == np.float32


def test_the_options_matter_here():
  assert {part for part in by_hand(probabilities())[0].ravel()} == {0, 1, 2, 3}
  for options in ({'min_confidence': 0.45}, {'min_area': 0.2}):
    before, after = (by_hand(probabilities(), **o)[0] for o in ({}, options))
    assert 0 < (after > 0).sum() < (before > 0).sum()


def test_ties_go_to_background_and_absent_parts_have_no_confidence():
  found = decide(np.full((3, 4, 5), 1 / 3, np.float32))
  assert not found.mask.any()
  assert found.part_confidence.tolist() == [0, 0]
  assert found.confidence == pytest.approx(1 / 3)


def test_a_class_without_parts_is_background():
  found = decide(np.ones((1, 4, 5), np.float32))
  assert not found.mask.any() and found.part_confidence.shape == (0,)
