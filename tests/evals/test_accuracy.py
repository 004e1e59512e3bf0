import dataclasses

import jax
import numpy as np
import pytest

from pinpp_jax import evals
from pinpp_jax.construct import construct
from pinpp_jax.errors import UserError
from pinpp_jax.evals import accuracy, examples

JOINT = dict(name='joint_pgd', eps=0.05, step_size=0.02, steps=2)


def make(tiny, split, table, model, *, size=8, order=None, put=None, **fields):
  section = {'name': 'accuracy'} | fields
  return construct(
    evals.EVALS,
    section,
    model=model,
    batches=lambda: tiny.batches_of(split, size, order),
    put=put or tiny.put,
    labels=table,
  )


def test_equals_a_direct_computation(tiny, split, table, key):
  model, variables = tiny.make()
  scores = make(tiny, split, table, model)(variables, key)

  image = split['image'].astype(np.float32) / 255
  logits = np.asarray(model.apply(variables, image)['logits'], np.float64)
  rows = np.arange(len(logits))
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  # No top-5 of four classes.
  assert set(scores) == {'clean_accuracy', 'clean_loss', 'clean_examples'}
  right = logits.argmax(-1) == split['label']
  assert 0 < right.mean() < 1
  assert scores['clean_accuracy'] == pytest.approx(right.mean())
  assert scores['clean_loss'] == pytest.approx(
    -log_p[rows, split['label']].mean(), rel=1e-5
  )
  assert scores['clean_examples'] == 21


def test_top5_of_many_classes(key):
  class Fixed:
    def apply(self, variables, image, *, train):
      return {'logits': variables}

  logits = np.array([[9, 8, 7, 6, 5, 4, 3]] * 8, np.float32)
  batch = {
    'image': np.zeros((8, 2, 2, 3), np.uint8),
    'label': np.array([0, 1, 4, 5, 6, 0, 0, 0], np.int32),
    'id': np.zeros(8, np.uint32),
    'mask': np.array([1, 1, 1, 1, 1, 0, 0, 0], np.float32),
  }
  pairs = accuracy.count(
    logits, batch, key, model=Fixed(), attack=None, num_classes=7
  )
  assert [float(x) for x in pairs['accuracy']] == [1, 5]
  assert [float(x) for x in pairs['top5']] == [3, 5]


def test_attacked_verdicts_ignore_batch_order_and_devices(
  tiny, split, table, key, noise
):
  model, variables = tiny.make()
  order = np.random.default_rng(3).permutation(21)
  fields = dict(prefix='noise', attack=noise)
  got = [
    make(tiny, split, table, model, **fields, **case)(variables, key)
    for case in ({}, {'size': 24}, {'size': 16, 'order': order})
  ]
  for other in got[1:]:
    assert other == pytest.approx(got[0], rel=1e-6)
  assert got[0]['noise_accuracy'] > 0
  other_key = make(tiny, split, table, model, **fields)(
    variables, jax.random.key(5)
  )
  assert other_key['noise_loss'] != got[0]['noise_loss']
  clean = make(tiny, split, table, model)(variables, key)
  assert clean['clean_loss'] != got[0]['noise_loss']


@pytest.mark.parametrize('attack', [{}, {'class_weight': 0.0, 'aim': 'other'}])
def test_attacks_on_parts_ignore_batch_order_and_devices(
  tiny, split, table, key, mpm, attack
):
  model, variables = mpm
  order = np.random.default_rng(3).permutation(21)
  fields = dict(prefix='joint', attack=JOINT | attack)
  got = [
    make(tiny, split, table, model, **fields, **case)(variables, key)
    for case in (
      {},
      {'size': 24, 'order': order},
      {'size': 3, 'put': jax.device_put},
    )
  ]
  for other in got[1:]:
    assert other['joint_accuracy'] == got[0]['joint_accuracy']
    assert other == pytest.approx(got[0], rel=1e-4)
  # Every third image has no mask.
  assert got[0]['joint_examples'] == 14


def test_an_attack_without_a_part_weight_is_pgd(tiny, split, table, key, mpm):
  model, variables = mpm
  masked = {k: v[split['source'] > 0] for k, v in split.items()}
  plain, none = (
    make(tiny, masked, table, model, attack=JOINT | attack)(variables, key)
    for attack in ({'name': 'pgd'}, {'part_weight': 0.0})
  )
  assert none == pytest.approx(plain, rel=1e-6)
  clean = make(tiny, masked, table, model)(variables, key)
  assert clean['clean_accuracy'] > plain['clean_accuracy']


def test_a_split_without_part_masks_has_no_score_under_them(
  tiny, split, table, key, mpm
):
  model, variables = mpm
  bare = split | {'source': np.zeros(21, np.int32)}
  scores = make(tiny, bare, table, model, prefix='joint', attack=JOINT)(
    variables, key
  )
  assert scores == {'joint_examples': 0}


def test_attacks_on_parts_need_parts(tiny, split, table, key):
  without, variables = tiny.make(has_parts=False)
  with pytest.raises(UserError, match='this one has none'):
    make(tiny, split, table, without, attack=JOINT)(variables, key)
  model, variables = tiny.make(num_parts=9)
  with pytest.raises(UserError, match='10 part channels'):
    make(tiny, split, table, model, attack=JOINT)(variables, key)
  model, variables = tiny.make()
  objects = JOINT | {'targets': 'objects'}
  with pytest.raises(UserError, match='7 part channels and the data 5'):
    make(tiny, split, table, model, attack=objects)(variables, key)
  bare = dataclasses.replace(table, parts=())
  with pytest.raises(UserError, match='no part labels'):
    make(tiny, split, bare, model, attack=JOINT)


def test_images_have_their_own_keys(key):
  ids = np.array([7, 7, 2**32 - 1], np.uint32)
  data = jax.random.key_data(examples.keys(key, ids))
  assert (data[0] == data[1]).all() and (data[0] != data[2]).any()
  alone = jax.random.key_data(jax.random.fold_in(key, ids[2]))
  np.testing.assert_array_equal(data[2], alone)


@pytest.mark.parametrize('size', [8, 16, 24])
@pytest.mark.parametrize('limit', [1, 8, 13, 21, 100])
def test_limit_takes_the_first_examples(tiny, split, table, key, limit, size):
  model, variables = tiny.make()
  scores = make(tiny, split, table, model, limit=limit, size=size)(
    variables, key
  )
  few = {k: v[:limit] for k, v in split.items()}
  whole = make(tiny, few, table, model)(variables, key)
  assert scores == pytest.approx(whole)
  assert scores['clean_examples'] == min(limit, 21)


def test_every_example_counts_once(tiny, split, table, key):
  model, variables = tiny.make()
  with pytest.raises(RuntimeError, match='twice'):
    make(tiny, split, table, model, order=[0, 1, 1])(variables, key)
  short = make(tiny, split, table, model, order=range(20))
  with pytest.raises(RuntimeError, match='20 examples .* instead of 21'):
    short = construct(
      evals.EVALS,
      {'name': 'accuracy'},
      model=model,
      batches=lambda: tiny.batches_of(split, 8, range(20)),
      put=tiny.put,
      labels=table,
      examples=21,
    )
    short(variables, key)


def test_a_broken_network_is_never_right(tiny, split, table, key):
  model, variables = tiny.make()
  broken = jax.tree.map(lambda x: x * np.nan, variables)
  scores = make(tiny, split, table, model)(broken, key)
  assert scores['clean_accuracy'] == 0
  assert np.isnan(scores['clean_loss'])


def test_wrong_number_of_classes_is_refused(tiny, split, table, key):
  model, variables = tiny.make(num_classes=5)
  with pytest.raises(UserError, match='5 classes'):
    make(tiny, split, table, model)(variables, key)


def test_an_empty_split_is_refused(tiny, split, table, key):
  model, variables = tiny.make()
  with pytest.raises(UserError, match='no example'):
    make(tiny, split, table, model, order=[])(variables, key)


def test_equal_evaluators_compile_once(tiny, split, table, key, noise):
  model, variables = tiny.make()
  accuracy.count.clear_cache()
  for _ in range(2):
    make(tiny, split, table, model, attack=noise)(variables, key)
  assert accuracy.count._cache_size() == 1
