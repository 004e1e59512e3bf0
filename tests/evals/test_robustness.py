import json

import jax
import numpy as np
import pytest

from pinpp_jax import evals
from pinpp_jax.construct import construct
from pinpp_jax.errors import UserError
from pinpp_jax.evals import robustness

CUSTOM = dict(
  name='autoattack', eps=0.02, version='custom', batch_size=8,
  attacks={'apgd-ce': {'steps': 3}, 'square': {'queries': 10}},
)  # fmt: skip
ENTRY = dict(
  title='Parts', authors='Ann Author', year='2026', link='https://a.example',
  venue='arXiv', architecture='ResNet-10',
)  # fmt: skip


@pytest.fixture
def run(tiny, split, mpm):
  model, variables = mpm

  def run(section, folder, *, weights=variables, **changes):
    fields = dict(
      model=model, batches=lambda: tiny.batches_of(split, 8), folder=folder,
      about={'list': 'mine'}, put=tiny.put, examples=len(split['label']),
    ) | changes  # fmt: skip
    evaluator = construct(evals.EVALS, section, **fields)
    return evaluator(weights, jax.random.key(0))

  return run


def test_scores_are_those_of_the_result_file(run, tmp_path, split, mpm):
  scores = run(CUSTOM, tmp_path)
  found = json.loads((tmp_path / 'result.json').read_text())
  assert scores == {
    'custom_linf_accuracy': found['robust_accuracy'],
    'custom_linf_clean_accuracy': found['clean_accuracy'],
    'custom_linf_apgd-ce_accuracy': found['attacks']['apgd-ce'][
      'robust_accuracy'
    ],
    'custom_linf_square_accuracy': found['robust_accuracy'],
    'custom_linf_examples': 21.0,
  }
  model, variables = mpm
  image = split['image'].astype(np.float32) / 255
  logits = model.apply(variables, image, train=False)['logits']
  right = np.asarray(logits).argmax(-1) == split['label']
  assert scores['custom_linf_clean_accuracy'] == right.mean() > 0
  assert found['about'] == {'list': 'mine'}
  assert found['ids'] == split['id'].tolist()
  # The same run goes on; one with other weights does not.
  assert run(CUSTOM, tmp_path) == scores
  other = jax.tree.map(lambda x: x * 1.01, variables)
  with pytest.raises(UserError, match='holds another evaluation'):
    run(CUSTOM, tmp_path, weights=other)


def test_in_training_weights_change_and_nothing_is_kept(run, tmp_path, mpm):
  section = CUSTOM | dict(save_adversarial=True)
  scores = run(section, None)
  other = jax.tree.map(lambda x: x * 0.5, mpm[1])
  assert run(section, None, weights=other) != scores
  assert run(section, tmp_path) == scores
  assert (tmp_path / 'ids.npy').exists()


def test_searching_in_bfloat16_is_checked_in_float32(run, tmp_path):
  section = CUSTOM | dict(search_dtype='bfloat16', save_adversarial=True)
  scores = run(section, tmp_path)
  clean = scores['custom_linf_clean_accuracy']
  assert scores['custom_linf_accuracy'] < clean
  # As another evaluation would judge the images it kept.
  again = run(dict(name='transfer', path=str(tmp_path)), None)
  assert again['transfer_accuracy'] == 0
  broken = (clean - scores['custom_linf_accuracy']) * 21
  assert again['transfer_examples'] == pytest.approx(broken)


def test_examples_transfer_to_another_network(run, tmp_path, mpm):
  run(CUSTOM | dict(save_adversarial=True), tmp_path)
  rng = np.random.default_rng(0)
  other = jax.tree.map(
    lambda x: x + 0.01 * rng.normal(size=x.shape).astype(x.dtype), mpm[1]
  )
  section = dict(name='transfer', path=str(tmp_path), prefix='from_a')
  scores = run(section, None, weights=other)
  assert 0 <= scores['from_a_accuracy'] <= scores['from_a_clean_accuracy'] <= 1


def test_transfer_names_what_is_missing(run, tmp_path, tiny, split):
  section = dict(name='transfer', path=str(tmp_path))
  with pytest.raises(UserError, match='adversarial.npy does not exist'):
    run(section, None)
  run(CUSTOM | dict(save_adversarial=True), tmp_path)
  others = split | {'id': split['id'] + 1}
  with pytest.raises(UserError, match='belongs to this split'):
    run(section, None, batches=lambda: tiny.batches_of(others, 8))


def test_an_entry_for_the_board_is_checked_before_the_attack(run, tmp_path):
  with pytest.raises(UserError, match='lacks authors'):
    run(CUSTOM | dict(robustbench=ENTRY | {'authors': ''}), tmp_path)
  with pytest.raises(UserError, match='no field'):
    run(CUSTOM | dict(robustbench=ENTRY | {'colour': 'red'}), tmp_path)
  assert not list(tmp_path.iterdir())
  with pytest.raises(UserError, match="instead of 'standard'"):
    run(CUSTOM | dict(robustbench=ENTRY), tmp_path)


def test_only_real_examples_count(tiny, split):
  found = robustness.images(tiny.batches_of(split, 8), limit=13)
  np.testing.assert_array_equal(found['id'], split['id'][:13])
  with pytest.raises(UserError, match='no example'):
    robustness.images(tiny.batches_of(split, 8), limit=0)
