"""Concept metrics against loops over pixels, scikit-learn and torch."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from pinpp_jax import heatmaps
from pinpp_jax.errors import UserError


def cases(count=30):
  """Yields maps with many equal values, and masks that are never empty."""
  rng = np.random.default_rng(0)
  for _ in range(count):
    shape = tuple(rng.integers(1, 8, 2))
    heat = rng.integers(-3, 4, shape) / 4
    mask = rng.random(shape) < rng.random()
    mask[tuple(rng.integers(0, shape))] = True
    yield heat, mask


def pixels(heat, mask):
  return [
    (float(heat[y, x]), bool(mask[y, x]))
    for y in range(heat.shape[0])
    for x in range(heat.shape[1])
  ]


def test_pointing_mass_and_iou_are_what_a_loop_counts():
  for heat, mask in cases():
    every = pixels(heat, mask)
    top = max(value for value, _ in every)
    low = min(value for value, _ in every)
    hits = [inside for value, inside in every if value == top]
    assert heatmaps.pointing(heat, mask) == sum(hits) / len(hits)
    total = sum(max(value, 0) for value, _ in every)
    inner = sum(max(value, 0) for value, inside in every if inside)
    expected = inner / total if total else 0
    assert heatmaps.mass(heat, mask) == pytest.approx(expected)
    for threshold in (0.2, 0.5, 1.0):
      limit = low + threshold * (top - low)
      both = either = 0
      for value, inside in every:
        reached = value >= limit and top > low
        both += reached and inside
        either += reached or inside
      found = heatmaps.iou(heat, mask, [threshold])
      assert found == pytest.approx([both / either])


def test_average_precision_is_that_of_scikit_learn():
  for heat, mask in cases():
    expected = average_precision_score(mask.ravel(), heat.ravel())
    assert heatmaps.average_precision(heat, mask) == pytest.approx(expected)
  assert np.isnan(heatmaps.average_precision(np.ones(3), np.zeros(3, bool)))
  assert np.isnan(heatmaps.average_precision(np.ones(0), np.zeros(0, bool)))


def test_average_precision_counts_equal_scores_together():
  for heat, mask in cases():
    every = pixels(heat, mask)
    positives, area, before = mask.sum(), 0.0, 0
    for level in sorted({value for value, _ in every}, reverse=True):
      chosen = [inside for value, inside in every if value >= level]
      area += (sum(chosen) - before) / positives * sum(chosen) / len(chosen)
      before = sum(chosen)
    assert heatmaps.average_precision(heat, mask) == pytest.approx(area)


def test_a_constant_map_scores_as_chance_and_finds_nothing():
  mask = np.zeros((4, 5), bool)
  mask[1, :3] = True
  heat = np.full((4, 5), 0.3)
  assert heatmaps.pointing(heat, mask) == pytest.approx(3 / 20)
  assert heatmaps.mass(heat, mask) == pytest.approx(3 / 20)
  assert heatmaps.average_precision(heat, mask) == pytest.approx(3 / 20)
  assert heatmaps.iou(heat, mask).tolist() == [0, 0, 0]
  assert heatmaps.mass(-heat, mask) == 0


def test_the_mask_itself_is_the_best_map():
  for _, mask in cases():
    if mask.all():
      continue
    heat = mask.astype(float)
    assert heatmaps.pointing(heat, mask) == heatmaps.mass(heat, mask) == 1
    assert heatmaps.average_precision(heat, mask) == 1
    assert heatmaps.iou(heat, mask).tolist() == [1, 1, 1]


@pytest.mark.parametrize('size', [(3, 4), (7, 7), (14, 2), (50, 61)])
def test_resizing_interpolates_between_the_centres_of_pixels(size):
  heat = np.random.default_rng(0).normal(size=(7, 5))
  expected = np.empty(size)
  for y in range(size[0]):
    for x in range(size[1]):
      v = min(max((y + 0.5) * 7 / size[0] - 0.5, 0), 6)
      u = min(max((x + 0.5) * 5 / size[1] - 0.5, 0), 4)
      weights = np.maximum(1 - abs(v - np.arange(7)), 0)[:, None] * np.maximum(
        1 - abs(u - np.arange(5)), 0
      )
      expected[y, x] = (weights * heat).sum()
  np.testing.assert_allclose(heatmaps.resize(heat, *size), expected)


def test_resizing_is_that_of_torch():
  torch = pytest.importorskip('torch')
  heat = np.random.default_rng(0).normal(size=(7, 5))
  for size in ((3, 4), (7, 5), (50, 61)):
    expected = torch.nn.functional.interpolate(
      torch.from_numpy(heat)[None, None], size, mode='bilinear'
    )
    found = heatmaps.resize(heat, *size)
    np.testing.assert_allclose(found, expected[0, 0].numpy(), atol=1e-12)


def test_a_tally_averages_over_images_and_concepts():
  tally = heatmaps.Tally([0.5])
  images = list(cases(6))
  for heat, mask in images:
    tally.add('wing', heat, mask)
  nothing = np.zeros((6, 9), bool)
  absent = [np.full((2, 3), value) for value in (-1.0, 0.2)]
  for heat in absent:
    tally.add('wing', heat, nothing)
    tally.add('leg', heat, nothing)
  leg, wing = tally.scores()
  assert (wing.images, wing.absent) == (6, 2)
  for name in ('pointing', 'mass'):
    expected = np.mean([getattr(heatmaps, name)(*one) for one in images])
    assert getattr(wing, name) == pytest.approx(expected)
  expected = np.mean([heatmaps.average_precision(*one) for one in images])
  assert wing.pixel_ap == pytest.approx(expected)
  assert wing.iou == pytest.approx(
    np.mean([heatmaps.iou(*one, [0.5]) for one in images], axis=0)
  )
  scores = [heat.max() for heat, _ in images] + [h.max() for h in absent]
  assert wing.presence_ap == pytest.approx(
    average_precision_score([1] * 6 + [0] * 2, scores)
  )
  assert leg.images == 0 and np.isnan(leg.pointing) and np.isnan(leg.iou[0])
  total = heatmaps.mean([leg, wing])
  assert total.pointing == wing.pointing and total.images == 6


def test_bad_maps_and_thresholds_are_refused():
  tally, mask = heatmaps.Tally(), np.ones((4, 4), bool)
  for heat in (np.ones(4), np.ones((1, 4, 4)), np.ones((0, 4))):
    with pytest.raises(UserError, match="'wing' has shape"):
      tally.add('wing', heat, mask)
  with pytest.raises(UserError, match='finite'):
    tally.add('wing', np.full((2, 2), np.nan), mask)
  for threshold in (0, 1.5):
    with pytest.raises(UserError, match='at most 1'):
      heatmaps.Tally([threshold])
  with pytest.raises(UserError, match='nothing to score'):
    heatmaps.mean([])
