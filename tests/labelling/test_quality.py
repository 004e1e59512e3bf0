"""Scores equal a count pixel by pixel; the page holds them."""

import numpy as np
import pytest
import standin

from pinpp_jax.data import masks
from pinpp_jax.errors import UserError
from pinpp_jax.labelling import quality

SIZES = [(30, 20), (20, 30), (17, 23), (8, 40)] * 6


def drawn():
  """Returns (label, confidence, truth, prediction) of some images."""
  rng = np.random.default_rng(0)
  rows = []
  for i, (width, height) in enumerate(SIZES):
    label = i % 2
    truth = rng.integers(0, standin.PARTS[label] + 1, (height, width))
    # The surer, the better.
    confidence = float(rng.random())
    noise = rng.integers(0, standin.PARTS[label] + 1, truth.shape)
    pred = np.where(rng.random(truth.shape) < confidence, truth, noise)
    rows.append((label, confidence, truth, pred))
  return rows


@pytest.fixture
def found():
  return [
    quality.compare(
      standin.labels(),
      place=i,
      file_name=f'{standin.WNIDS[label]}/{i}.JPEG',
      label=label,
      confidence=confidence,
      truth=masks.encode(truth),
      predicted=masks.encode(pred),
    )
    for i, (label, confidence, truth, pred) in enumerate(drawn())
  ]


def brute(rows):
  """Returns IoU of every (class, part) that occurs, and pixel accuracies."""
  over, under, right, parts, total = {}, {}, 0, [0, 0], 0
  for label, _, truth, pred in rows:
    for t, p in zip(truth.ravel(), pred.ravel(), strict=True):
      for part in {t, p}:
        key = (label, part) if part else 'background'
        under[key] = under.get(key, 0) + 1
        over[key] = over.get(key, 0) + (t == p)
      right, total = right + (t == p), total + 1
      if t:
        parts = [parts[0] + (t == p), parts[1] + 1]
  iou = {key: over[key] / under[key] for key in under}
  background = iou.pop('background')
  return iou, background, parts[0] / parts[1], right / total


def test_scores_equal_a_count_by_hand(found):
  scores = quality.scores(found, standin.labels())
  iou, background, on_parts, everywhere = brute(drawn())
  mean = np.mean([*iou.values()])
  objects = [
    np.mean([v for (k, _), v in iou.items() if k == label]) for label in (0, 1)
  ]
  assert scores['images'] == len(SIZES)
  for name, value in {
    'part_miou_known': mean,
    'part_miou_known_bg': np.mean([background, *iou.values()]),
    'part_miou_known_per_object': np.mean(objects),
    'pixel_accuracy_known': on_parts,
    'pixel_accuracy_known_bg': everywhere,
  }.items():
    assert scores[name] == pytest.approx(value), name
  assert [row['wnid'] for row in scores['classes']] == [
    standin.WNIDS[i] for i in np.argsort(objects)
  ]
  assert scores['classes'][0]['part_miou_known'] == pytest.approx(min(objects))
  assert scores['classes'][0]['images'] == 12


def test_tenths_go_from_the_least_to_the_most_sure(found):
  rows = sorted(drawn(), key=lambda row: row[1])
  tenths = quality.scores(found, standin.labels())['deciles']
  assert [t['images'] for t in tenths] == [3] * 4 + [2] * 6
  assert [t['decile'] for t in tenths] == list(range(1, 11))
  start = 0
  for tenth in tenths:
    some = rows[start : start + tenth['images']]
    start += tenth['images']
    iou = brute(some)[0]
    assert tenth['part_miou_known'] == pytest.approx(np.mean([*iou.values()]))
    assert tenth['mean_confidence'] == pytest.approx(
      np.mean([row[1] for row in some])
    )
    assert tenth['least_confidence'] == some[0][1]
    assert tenth['largest_confidence'] == some[-1][1]


def test_few_images_make_few_tenths(found):
  assert len(quality.scores(found[:4], standin.labels())['deciles']) == 4
  assert quality.scores([], standin.labels())['images'] == 0


@pytest.mark.parametrize(
  ('truth', 'message'),
  [
    (np.zeros((20, 31)), r'31 x 20.*does not fit its image \(30 x 20\)'),
    (np.full((20, 30), 3), r'up to 3\).*class \(2 parts\)'),
  ],
)
def test_a_true_mask_that_does_not_fit(truth, message):
  with pytest.raises(UserError, match=message):
    quality.compare(
      standin.labels(),
      place=0,
      file_name='n1/a.JPEG',
      label=0,
      confidence=0.5,
      truth=masks.encode(truth),
      predicted=masks.encode(np.zeros((20, 30))),
    )
