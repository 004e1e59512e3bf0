"""Counts and the scores of them, against scikit-learn and by hand."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from pinpp_jax.evals.segmentation import counts, tables


def counted(truth, pred, ids, weights=None):
  table = np.zeros((1 if weights is None else weights.shape[1], 3, ids), int)
  if weights is None:
    weights = np.ones((len(truth), 1), int)
  counts.count(table, truth, pred, weights)
  return table


def jaccard(truth, pred, ids):
  """Returns the mean IoU over those of ids that occur at all."""
  found = sorted(set(ids) & (set(truth.flat) | set(pred.flat)))
  return jaccard_score(truth.flat, pred.flat, labels=found, average='macro')


def recall(truth, pred, ids):
  """Returns the mean accuracy over those of ids that truth has."""
  number = max(truth.max(), pred.max()) + 1
  matrix = confusion_matrix(truth.flat, pred.flat, labels=range(number))
  found = sorted(set(ids) & set(truth.flat))
  return np.mean([matrix[i, i] / matrix[i].sum() for i in found])


@pytest.mark.parametrize('seed', range(5))
def test_scores_are_those_of_scikit_learn(table, seed):
  rng = np.random.default_rng(seed)
  # Few ids in use, so that some classes are missing in truth or prediction.
  truth = rng.choice([0, 0, 1, 3, 5], (9, 3, 3))
  pred = rng.choice([0, 1, 1, 4, 5, 6], (9, 3, 3))
  owner = tables.objects(table)
  sparse = counted(truth, pred, 7)
  no_bg = sparse[:, :, 1:]
  every, parts = range(7), range(1, 7)
  wanted = {
    'iou': jaccard(truth, pred, parts),
    'iou_bg': jaccard(truth, pred, every),
    'accuracy': recall(truth, pred, parts),
    'accuracy_bg': recall(truth, pred, every),
    'pixels': (truth == pred)[truth > 0].mean(),
    'pixels_bg': (truth == pred).mean(),
  }
  for name, score, used in (
    ('iou_per_object', jaccard, set(truth.flat) | set(pred.flat)),
    ('accuracy_per_object', recall, set(truth.flat)),
  ):
    of_objects = [np.flatnonzero(owner == k) for k in range(1, 5)]
    wanted[name] = np.mean([
      score(truth, pred, ids) for ids in of_objects if used & set(ids)
    ])  # fmt: skip
  found = {
    'iou': counts.mean_iou(no_bg),
    'iou_bg': counts.mean_iou(sparse),
    'accuracy': counts.mean_accuracy(no_bg),
    'accuracy_bg': counts.mean_accuracy(sparse),
    'pixels': counts.pixel_accuracy(no_bg),
    'pixels_bg': counts.pixel_accuracy(sparse),
    'iou_per_object': counts.mean_iou_per_object(sparse, owner),
    'accuracy_per_object': counts.mean_accuracy_per_object(sparse, owner),
  }
  assert {k: v[0] for k, v in found.items()} == pytest.approx(wanted)


def test_a_case_by_hand():
  truth = np.array([[[1, 1], [0, 2]]])
  pred = np.array([[[1, 2], [2, 2]]])
  table = counted(truth, pred, 5)
  # Part 1: 1 of 2; part 2: 1 of 3; parts 3, 4 do not occur; background: 0.
  assert counts.mean_iou(table[:, :, 1:])[0] == pytest.approx(5 / 12)
  assert counts.mean_iou(table)[0] == pytest.approx(5 / 18)
  assert counts.mean_accuracy(table[:, :, 1:])[0] == pytest.approx(0.75)
  assert counts.pixel_accuracy(table[:, :, 1:])[0] == pytest.approx(2 / 3)
  assert counts.pixel_accuracy(table)[0] == pytest.approx(0.5)
  # Parts 1, 3, 4 belong to object 1, of which part 1 alone is shown.
  merge = np.array([0, 1, 2, 1, 1])
  iou = counts.mean_iou_per_object(table, merge)[0]
  assert iou == pytest.approx((1 / 2 + 1 / 3) / 2)
  accuracy = counts.mean_accuracy_per_object(table, merge)[0]
  assert accuracy == pytest.approx((1 / 2 + 1) / 2)


def test_perfect_predictions_score_one():
  truth = np.array([[[1, 1], [0, 2]]])
  table = counted(truth, truth, 4)
  for score in (
    counts.mean_iou,
    counts.mean_accuracy,
    counts.pixel_accuracy,
  ):
    assert score(table) == 1


def test_batches_add_up_and_none_adds_nothing():
  truth, pred = np.random.default_rng(0).integers(0, 4, (2, 5, 3, 3))
  table = np.zeros((1, 3, 4), int)
  for rows in (slice(0, 2), slice(2, 2), slice(2, 5)):
    weights = np.ones((len(truth[rows]), 1), int)
    counts.count(table, truth[rows], pred[rows], weights)
  np.testing.assert_array_equal(table, counted(truth, pred, 4))


def test_memory_grows_with_the_ids_not_with_their_pairs():
  ids = 20_000
  truth, pred = np.random.default_rng(0).integers(0, ids, (2, 2, 16, 16))
  tracemalloc.start()
  counted(truth, pred, ids)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 200 * ids


def test_bootstrap_weights_are_poisson():
  weights = counts.replicates(np.arange(400, dtype=np.uint32), 100)
  assert (weights[:, 0] == 1).all()
  draws = weights[:, 1:]
  assert abs(draws.mean() - 1) < 0.02 and abs(draws.var() - 1) < 0.04


def test_weights_count_images_repeatedly():
  rng = np.random.default_rng(0)
  truth, pred = rng.integers(0, 4, (2, 5, 3, 3))
  weights = np.array([[1, 0], [1, 2], [1, 1], [1, 0], [1, 3]])
  table = counted(truth, pred, 4, weights)
  again = (x.repeat(weights[:, 1], axis=0) for x in (truth, pred))
  np.testing.assert_array_equal(table[1], counted(*again, 4)[0])


def test_intervals_are_those_of_resampled_images():
  rng = np.random.default_rng(0)
  # Images differ in how much is right, so the interval is that of images.
  truth = rng.integers(0, 4, (60, 4, 4))
  noise = rng.random(truth.shape) < rng.random(60)[:, None, None]
  pred = np.where(noise, rng.integers(0, 4, truth.shape), truth)
  weights = counts.replicates(np.arange(60), 3000)
  plain = np.stack(
    [np.bincount(rng.integers(0, 60, 60), minlength=60) for _ in range(3000)],
    axis=1,
  )
  for score in (counts.mean_iou, counts.mean_accuracy):
    ends = [
      np.percentile(score(counted(truth, pred, 4, drawn)), (2.5, 97.5))
      for drawn in (weights[:, 1:], plain)
    ]
    width = ends[1][1] - ends[1][0]
    np.testing.assert_allclose(ends[0], ends[1], atol=0.07 * width)


@pytest.mark.parametrize('tag', ['b4_s96', 'b2_s224'])
def test_pixel_accuracy_is_that_of_the_reference(golden, tag):
  recorded = np.load(golden / 'mpm_l3_down.npz')
  logits = recorded[f'f32/{tag}/eval_seg0']
  # The reference marks background as -1 before it counts.
  truth = np.maximum(recorded[f'f32/{tag}/pixel_seg0'], 0)
  table = counted(truth, logits.argmax(1), logits.shape[1])
  share = counts.pixel_accuracy(table[:, :, 1:])[0]
  assert 100 * share == pytest.approx(
    recorded[f'f32/{tag}/eval_pixel_acc'], rel=1e-6
  )
