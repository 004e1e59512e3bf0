import re

import jax
import numpy as np
import pytest

from pinpp_jax import evals
from pinpp_jax.construct import construct
from pinpp_jax.errors import UserError
from pinpp_jax.evals import predictions
from pinpp_jax.evals.segmentation import counts, tables


def make(
  tiny, split, table, model, *, size=8, order=None, train=None, **fields
):
  def batches(name='test'):
    if name == 'train':
      return tiny.batches_of(train, size)
    return tiny.batches_of(split, size, order)

  return construct(
    evals.EVALS,
    {'name': 'segmentation'} | fields,
    model=model,
    batches=batches,
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


def expected(truth, pred, table, how, end=''):
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
    for name, values in (('miou', iou), ('macc', acc)):
      for bg, first in (('', 1), ('_bg', 0)):
        scores[level.format(name) + bg + end] = mean(
          v for i, v in values.items() if i >= first
        )
      if level.startswith('part'):
        scores[f'part_{name}_{how}_per_object{end}'] = mean(
          mean(v for i, v in values.items() if i and owner[i] == k)
          for k in {owner[i] for i in values if i}
        )
  right = (truth == pred).ravel()
  scores[f'pixel_accuracy{known}{end}'] = right[truth.ravel() > 0].mean()
  scores[f'pixel_accuracy{known}_bg{end}'] = right.mean()
  return scores


def resize(logits, size):
  shape = (len(logits), *size, logits.shape[-1])
  return jax.image.resize(logits, shape, 'linear', antialias=False)


def direct(split, model, variables, table):
  """Returns truth, open and known predictions of the masked images."""
  image = split['image'].astype(np.float32) / 255
  logits = model.apply(variables, image, parts=True)['parts'][0]
  logits = np.asarray(resize(logits, split['parts'].shape[1:]))
  opened = logits.argmax(-1)
  known = np.zeros_like(opened)
  for i, label in enumerate(split['label']):
    ids = [0] + [
      p.global_id for p in table.parts if p.wnid == table.wnids[label]
    ]
    known[i] = np.array(ids)[logits[i][..., ids].argmax(-1)]
  keep = split['source'] != 0
  return split['parts'][keep], opened[keep], known[keep]


def usual(train, split):
  """Returns each masked image's prediction from its class alone."""
  wanted = np.zeros_like(split['parts'])
  for at in np.ndindex(wanted.shape):
    label = split['label'][at[0]]
    same = (train['label'] == label) & (train['source'] != 0)
    seen = np.bincount(train['parts'][same][:, *at[1:]], minlength=1)
    wanted[at] = seen.argmax()
  return wanted[split['source'] != 0]


@pytest.mark.parametrize('cell, size', [(8, 8), (8, 24), (2, 8), (1, 24)])
def test_equals_a_dense_computation(tiny, table, key, cell, size):
  model, variables = tiny.make()
  split, train = (tiny.split(table, cell=cell, seed=s) for s in (0, 1))
  fields = dict(size=size, prior=True, train=train)
  scores = make(tiny, split, table, model, **fields)(variables, key)
  truth, opened, known = direct(split, model, variables, table)
  assert len(np.unique(opened)) > 3 and (opened != known).any()
  wanted = {'masked_examples': 14}
  every = [(slice(None), '')]
  if cell < 8:
    every.append((np.arange(4, 32, 8) // cell, '_grid'))
  for at, grid in every:
    for pred, how, end in (
      (opened, 'open', grid),
      (known, 'known', grid),
      (usual(train, split), 'known', f'{grid}_prior'),
    ):
      there = [x[:, at][:, :, at] for x in (truth, pred)]
      wanted |= expected(*there, table, how, end)
  assert scores == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize('stride, cell', [(16, 8), (4, 8), (16, 1)])
def test_logits_of_any_size_fit_any_labels(tiny, table, key, stride, cell):
  model, variables = tiny.make(stride=stride)
  split = tiny.split(table, cell=cell)
  scores = make(tiny, split, table, model)(variables, key)
  truth, opened, _ = direct(split, model, variables, table)
  wanted = expected(truth, opened, table, 'open')
  assert {k: scores[k] for k in wanted} == pytest.approx(wanted)


def shapes(function, *args):
  """Returns the sizes of all arrays in a computation."""
  found = re.findall(r'\w\[([\d,]+)\]', str(jax.make_jaxpr(function)(*args)))
  return [np.prod([int(n) for n in shape.split(',')]) for shape in found]


def test_no_logits_at_every_label(tiny, table, key):
  model, variables = tiny.make(num_parts=300)
  split = tiny.split(table, cell=1)
  whole = split['parts'].size * 301

  def predict(batch):
    return predictions.predict(
      variables, batch, key, model=model, attack=None, channels=301, known=True
    )

  def dense(logits):
    return resize(logits, (32, 32)).argmax(-1)

  assert max(shapes(dense, np.zeros((21, 4, 4, 301)))) == whole
  batch = {name: split[name] for name in predictions.FIELDS}
  assert max(shapes(predict, batch)) <= whole / 16
  memory = jax.jit(predict).lower(batch).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 4 * whole / 4


def test_a_prior_of_the_very_image_is_perfect_and_made_once(tiny, table, key):
  split = tiny.split(table, cell=1)
  # One image of each of two classes; the other classes have none.
  rows = [
    np.flatnonzero((split['label'] == k) & (split['source'] != 0))[0]
    for k in (0, 1)
  ]
  one = {k: v[rows] for k, v in split.items()}
  model, variables = tiny.make()
  calls = []

  def batches(name='test'):
    calls.append(name)
    return tiny.batches_of(one, 8)

  evaluator = construct(
    evals.EVALS,
    {'name': 'segmentation', 'prior': True},
    model=model,
    batches=batches,
    put=tiny.put,
    labels=table,
  )
  for _ in range(2):
    scores = evaluator(variables, key)
  found = {k: v for k, v in scores.items() if k.endswith('_prior')}
  assert len(found) == 24 and set(found.values()) == {1.0}
  assert calls.count('train') == 1


def test_known_class_predicts_only_its_parts(tiny, split, table, key):
  model, variables = tiny.make()
  batch = tiny.put(next(tiny.batches_of(split, 24)))
  del batch['index']
  grids = predictions.predict(
    variables, batch, key, model=model, attack=None, channels=7, known=True
  )
  owner = tables.objects(table)[np.asarray(grids['known'])]
  label = split['label'][:, None, None]
  assert ((owner[:21] == 0) | (owner[:21] == label + 1)).all()
  # A class without parts is background everywhere.
  assert not grids['known'][:21][split['label'] == 2].any()


def test_objects(table):
  np.testing.assert_array_equal(tables.objects(table), [0, 1, 1, 2, 2, 2, 4])


def test_object_targets(tiny, split, table, key):
  model, variables = tiny.make(num_parts=4)
  scores = make(tiny, split, table, model, targets='objects')(variables, key)
  image = split['image'].astype(np.float32) / 255
  logits = np.asarray(model.apply(variables, image, parts=True)['parts'][0])
  keep = split['source'] != 0
  truth = tables.objects(table)[split['parts']][keep]
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


def test_bootstrap_scores_repeated_images(tiny, table, key):
  model, variables = tiny.make()
  split = tiny.split(table, cell=4)
  scores = make(tiny, split, table, model, bootstrap=9)(variables, key)
  truth, opened, known = direct(split, model, variables, table)
  ids = split['id'][split['source'] != 0]
  drawn = []
  for weights in counts.replicates(ids, 9).T[1:]:
    again = [x.repeat(weights, axis=0) for x in (truth, opened, known)]
    wanted = expected(again[0], again[1], table, 'open')
    wanted |= expected(again[0], again[2], table, 'known')
    again = [x[:, 1::2, 1::2] for x in again]
    wanted |= expected(again[0], again[1], table, 'open', '_grid')
    drawn.append(wanted | expected(again[0], again[2], table, 'known', '_grid'))
  for name in drawn[0]:
    ends = np.percentile([row[name] for row in drawn], (2.5, 97.5))
    found = scores[f'{name}_low'], scores[f'{name}_high']
    assert found == pytest.approx(tuple(ends)), name


def test_attack_limit_and_prefix(tiny, split, table, key, noise):
  model, variables = tiny.make()
  clean = make(tiny, split, table, model, limit=9)(variables, key)
  noisy = make(
    tiny, split, table, model, limit=9, attack=noise, prefix='noise'
  )(variables, key)
  assert clean['masked_examples'] == noisy['noise_masked_examples'] == 6
  assert clean['pixel_accuracy'] != noisy['noise_pixel_accuracy']


def test_an_attack_on_the_parts_changes_their_scores(
  split, table, key, tiny, mpm
):
  model, variables = mpm
  attack = dict(name='joint_pgd', eps=0.1, step_size=0.05, steps=2, gamma=0.0)
  for more in ({'class_weight': 0.0}, {'aim': 'other'}):
    clean, attacked = (
      make(tiny, split, table, model, size=24, attack=a)(variables, key)
      for a in (None, attack | more)
    )
    assert set(clean) == set(attacked)
    assert clean != attacked
  assert clean['masked_examples'] == 14
  with pytest.raises(UserError, match="has targets='objects'"):
    objects = attack | {'targets': 'objects'}
    make(tiny, split, table, model, attack=objects)


def test_a_split_without_masks_has_no_scores(tiny, split, table, key):
  model, variables = tiny.make()
  unmasked = split | {'source': np.zeros_like(split['source'])}
  scores = make(tiny, unmasked, table, model)(variables, key)
  assert scores == {'masked_examples': 0}


def test_mistakes_are_named(tiny, split, table, key):
  model, variables = tiny.make(has_parts=False)
  with pytest.raises(UserError, match='needs a model'):
    make(tiny, split, table, model)(variables, key)
  model, variables = tiny.make(num_parts=9)
  with pytest.raises(UserError, match='10 part channels'):
    make(tiny, split, table, model)(variables, key)
  with pytest.raises(UserError, match='targets'):
    make(tiny, split, table, model, targets='part')
  with pytest.raises(UserError, match='prior'):
    make(tiny, split, table, model, targets='objects', prior=True)
  model, variables = tiny.make()
  with pytest.raises(RuntimeError, match='twice'):
    make(tiny, split, table, model, order=[3, 3, 4])(variables, key)


def test_a_segmenter_has_scores_but_nothing_to_attack(
  tiny, split, table, key, noise
):
  model, variables = tiny.make(has_logits=False)
  scores = make(tiny, split, table, model)(variables, key)
  wanted = expected(*direct(split, model, variables, table)[:2], table, 'open')
  assert {k: scores[k] for k in wanted} == pytest.approx(wanted)
  with pytest.raises(UserError, match='class logits'):
    make(tiny, split, table, model, attack=noise)(variables, key)
