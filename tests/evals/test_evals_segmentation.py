import numpy as np
import pytest

from pinpp_jax import evals
from pinpp_jax.construct import construct
from pinpp_jax.errors import UserError
from pinpp_jax.evals import counts, segmentation


def make(tiny, split, table, model, *, size=8, order=None, **fields):
  return construct(
    evals.EVALS,
    {'name': 'segmentation'} | fields,
    model=model,
    batches=lambda: tiny.batches_of(split, size, order),
    put=tiny.put,
    labels=table,
  )


# An independent computation: a dense confusion matrix filled cell by cell.


def confusion(truth, pred, n):
  matrix = [[0] * n for _ in range(n)]
  for t, p in zip(truth.ravel(), pred.ravel(), strict=True):
    matrix[t][p] += 1
  return np.array(matrix)


def ious(matrix):
  """Returns {id: IoU} of the ids with true or predicted cells."""
  found = {}
  for i in range(len(matrix)):
    union = matrix[i].sum() + matrix[:, i].sum() - matrix[i, i]
    if union:
      found[i] = matrix[i, i] / union
  return found


def mean(values):
  values = list(values)
  return sum(values) / len(values)


def expected(truth, pred, table, how):
  """Returns all scores of one way to predict, from dense matrices."""
  owner = {p.global_id: table.wnids.index(p.wnid) + 1 for p in table.parts}
  owner[0] = 0
  merge = np.vectorize(owner.__getitem__)
  known = '_known' if how == 'known' else ''
  scores = {}
  for level, matrix in (
    (f'part_{{}}_{how}', confusion(truth, pred, table.num_parts + 1)),
    (
      f'object_{{}}{known}',
      confusion(merge(truth), merge(pred), table.num_classes + 1),
    ),
  ):
    iou = ious(matrix)
    acc = {
      i: matrix[i, i] / matrix[i].sum()
      for i in range(len(matrix))
      if matrix[i].sum()
    }
    for bg, first in (('', 1), ('_bg', 0)):
      scores[level.format('miou') + bg] = mean(
        v for i, v in iou.items() if i >= first
      )
      scores[level.format('macc') + bg] = mean(
        v for i, v in acc.items() if i >= first
      )
    if level.startswith('part'):
      right = (truth == pred).ravel()
      scores[f'pixel_accuracy{known}'] = right[truth.ravel() > 0].mean()
      scores[f'pixel_accuracy{known}_bg'] = right.mean()
      scores[f'part_miou_{how}_per_object'] = mean(
        mean(v for i, v in iou.items() if i and owner[i] == k)
        for k in {owner[i] for i in iou if i}
      )
  return scores


def direct(tiny, split, model, variables, table):
  """Returns truth, open and known predictions of the masked images."""
  image = split['image'].astype(np.float32) / 255
  logits = np.asarray(model.apply(variables, image, parts=True)['parts'][0])
  opened = logits.argmax(-1)
  known = np.zeros_like(opened)
  for i, label in enumerate(split['label']):
    ids = [0] + [
      p.global_id for p in table.parts if p.wnid == table.wnids[label]
    ]
    known[i] = np.array(ids)[logits[i][..., ids].argmax(-1)]
  keep = split['source'] != 0
  return split['parts'][keep], opened[keep], known[keep]


@pytest.mark.parametrize('size', [8, 24])
def test_equals_a_dense_computation(tiny, split, table, key, size):
  model, variables = tiny.make()
  scores = make(tiny, split, table, model, size=size)(variables, key)
  truth, opened, known = direct(tiny, split, model, variables, table)
  assert len(np.unique(opened)) > 3 and (opened != known).any()
  wanted = expected(truth, opened, table, 'open')
  wanted |= expected(truth, known, table, 'known')
  wanted['masked_examples'] = 14
  assert scores == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize('seed', range(5))
def test_random_predictions_against_dense_matrices(table, seed):
  rng = np.random.default_rng(seed)
  # Few ids in use, so that some classes are missing in truth or prediction.
  truth = rng.choice([0, 0, 1, 3, 5], (9, 3, 3))
  pred = rng.choice([0, 1, 1, 4, 5, 6], (9, 3, 3))
  sparse = np.zeros((1, 3, 7), np.int64)
  for rows in (slice(0, 4), slice(4, 9)):
    ones = counts.replicates(np.arange(9)[rows], 0)
    counts.count(sparse, truth[rows], pred[rows], ones)
  wanted = expected(truth, pred, table, 'open')
  no_bg = sparse[:, :, 1:]
  assert counts.mean_iou(no_bg) == pytest.approx(wanted['part_miou_open'])
  assert counts.mean_iou(sparse) == pytest.approx(wanted['part_miou_open_bg'])
  assert counts.mean_accuracy(no_bg) == pytest.approx(wanted['part_macc_open'])
  assert counts.pixel_accuracy(no_bg) == pytest.approx(wanted['pixel_accuracy'])
  assert counts.mean_iou_per_object(
    sparse, segmentation.objects(table)
  ) == pytest.approx(wanted['part_miou_open_per_object'])


def test_a_case_by_hand():
  truth = np.array([[[1, 1], [0, 2]]])
  pred = np.array([[[1, 2], [2, 2]]])
  table = np.zeros((1, 3, 5), np.int64)
  counts.count(table, truth, pred, np.ones((1, 1), np.int64))
  # Part 1: 1 of 2; part 2: 1 of 3; parts 3, 4 do not occur; background: 0.
  assert counts.mean_iou(table[:, :, 1:])[0] == pytest.approx(5 / 12)
  assert counts.mean_iou(table)[0] == pytest.approx(5 / 18)
  assert counts.mean_accuracy(table[:, :, 1:])[0] == pytest.approx(0.75)
  assert counts.pixel_accuracy(table[:, :, 1:])[0] == pytest.approx(2 / 3)
  assert counts.pixel_accuracy(table)[0] == pytest.approx(0.5)


def test_perfect_predictions_score_one():
  truth = np.array([[[1, 1], [0, 2]]])
  table = np.zeros((1, 3, 4), np.int64)
  counts.count(table, truth, truth, np.ones((1, 1), np.int64))
  for score in (
    counts.mean_iou,
    counts.mean_accuracy,
    counts.pixel_accuracy,
  ):
    assert score(table) == 1


def test_known_class_predicts_only_its_parts(tiny, split, table, key):
  model, variables = tiny.make()
  batch = tiny.put(next(tiny.batches_of(split, 24)))
  grids = segmentation.predict(
    variables,
    batch,
    key,
    segmentation.columns(table),
    model=model,
    attack=None,
    channels=7,
    known=True,
  )
  owner = segmentation.objects(table)[np.asarray(grids['known'])]
  label = split['label'][:, None, None]
  assert ((owner[:21] == 0) | (owner[:21] == label + 1)).all()
  # A class without parts is background everywhere.
  assert not grids['known'][:21][split['label'] == 2].any()


def test_columns_and_objects(table):
  np.testing.assert_array_equal(
    segmentation.columns(table),
    [[0, 1, 2, 0], [0, 3, 4, 5], [0, 0, 0, 0], [0, 6, 0, 0]],
  )
  np.testing.assert_array_equal(
    segmentation.objects(table), [0, 1, 1, 2, 2, 2, 4]
  )


def test_coarse_predictions_are_enlarged(tiny, split, table, key):
  model, variables = tiny.make(stride=16)
  scores = make(tiny, split, table, model)(variables, key)
  image = split['image'].astype(np.float32) / 255
  logits = np.asarray(model.apply(variables, image, parts=True)['parts'][0])
  opened = logits.argmax(-1).repeat(2, 1).repeat(2, 2)
  keep = split['source'] != 0
  wanted = expected(split['parts'][keep], opened[keep], table, 'open')
  assert {k: scores[k] for k in wanted} == pytest.approx(wanted)


def test_object_targets(tiny, split, table, key):
  model, variables = tiny.make(num_parts=4)
  scores = make(tiny, split, table, model, targets='objects')(variables, key)
  image = split['image'].astype(np.float32) / 255
  logits = np.asarray(model.apply(variables, image, parts=True)['parts'][0])
  keep = split['source'] != 0
  truth = segmentation.objects(table)[split['parts']][keep]
  pred = logits.argmax(-1)[keep]
  iou = ious(confusion(truth, pred, 5))
  assert set(scores) == {
    'object_miou', 'object_miou_bg', 'object_macc', 'object_macc_bg',
    'pixel_accuracy', 'pixel_accuracy_bg', 'masked_examples',
  }  # fmt: skip
  assert scores['object_miou_bg'] == pytest.approx(mean(iou.values()))
  assert scores['pixel_accuracy_bg'] == pytest.approx((truth == pred).mean())


def test_bootstrap_does_not_depend_on_order(tiny, split, table, key):
  model, variables = tiny.make()
  order = np.random.default_rng(0).permutation(21)
  first = make(tiny, split, table, model, bootstrap=40)(variables, key)
  other = make(tiny, split, table, model, bootstrap=40, size=16, order=order)(
    variables, key
  )
  assert first == pytest.approx(other)
  low, high = first['part_miou_known_low'], first['part_miou_known_high']
  assert low < first['part_miou_known'] < high


def test_bootstrap_weights_are_poisson():
  weights = counts.replicates(np.arange(400, dtype=np.uint32), 100)
  assert (weights[:, 0] == 1).all()
  draws = weights[:, 1:]
  assert abs(draws.mean() - 1) < 0.02 and abs(draws.var() - 1) < 0.04


def test_weights_count_images_repeatedly():
  rng = np.random.default_rng(0)
  truth, pred = rng.integers(0, 4, (2, 5, 3, 3))
  weights = np.array([[1, 0], [1, 2], [1, 1], [1, 0], [1, 3]])
  table = np.zeros((2, 3, 4), np.int64)
  counts.count(table, truth, pred, weights)
  again = np.zeros((1, 3, 4), np.int64)
  for i, n in enumerate(weights[:, 1]):
    for _ in range(n):
      one = np.ones((1, 1), np.int64)
      counts.count(again, truth[i : i + 1], pred[i : i + 1], one)
  np.testing.assert_array_equal(table[1], again[0])


def test_attack_limit_and_prefix(tiny, split, table, key, noise):
  model, variables = tiny.make()
  clean = make(tiny, split, table, model, limit=9)(variables, key)
  noisy = make(
    tiny, split, table, model, limit=9, attack=noise, prefix='noise'
  )(variables, key)
  assert clean['masked_examples'] == noisy['noise_masked_examples'] == 6
  assert clean['pixel_accuracy'] != noisy['noise_pixel_accuracy']


def test_a_split_without_masks_has_no_scores(tiny, split, table, key):
  model, variables = tiny.make()
  unmasked = split | {'source': np.zeros_like(split['source'])}
  scores = make(tiny, unmasked, table, model)(variables, key)
  assert scores == {'masked_examples': 0}


@pytest.mark.parametrize('tag', ['b4_s96', 'b2_s224'])
def test_pixel_accuracy_is_that_of_the_reference(golden, tag):
  recorded = np.load(golden / 'mpm_l3_down.npz')
  logits = recorded[f'f32/{tag}/eval_seg0']
  # The reference marks background as -1 before it counts.
  truth = np.maximum(recorded[f'f32/{tag}/pixel_seg0'], 0)
  table = np.zeros((1, 3, logits.shape[1]), np.int64)
  ones = counts.replicates(np.arange(len(truth)), 0)
  counts.count(table, truth, logits.argmax(1), ones)
  share = counts.pixel_accuracy(table[:, :, 1:])[0]
  assert 100 * share == pytest.approx(
    recorded[f'f32/{tag}/eval_pixel_acc'], rel=1e-6
  )


def test_mistakes_are_named(tiny, split, table, key):
  model, variables = tiny.make(has_parts=False)
  with pytest.raises(UserError, match='needs a model'):
    make(tiny, split, table, model)(variables, key)
  model, variables = tiny.make(num_parts=9)
  with pytest.raises(UserError, match='10 part channels'):
    make(tiny, split, table, model)(variables, key)
  with pytest.raises(UserError, match='targets'):
    make(tiny, split, table, model, targets='part')
  model, variables = tiny.make()
  with pytest.raises(RuntimeError, match='twice'):
    make(tiny, split, table, model, order=[3, 3, 4])(variables, key)
