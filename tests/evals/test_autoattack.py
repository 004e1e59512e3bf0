import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.errors import UserError
from pinpp_jax.evals.autoattack import autoattack, versions
from pinpp_jax.evals.autoattack import chunks as job_lib
from pinpp_jax.evals.autoattack import result as outcome_lib
from pinpp_jax.machine import perf

N, S, K = 30, 8, 10
EPS = {'linf': 0.008, 'l2': 0.08, 'l1': 0.6}
QUICK = {
  'apgd-ce': {'steps': 10},
  'apgd-t': {'steps': 5, 'target_classes': 2},
  'fab-t': {'steps': 5, 'target_classes': 2},
  'square': {'queries': 30},
}


def network(seed):
  rng = np.random.default_rng(seed)
  first = jnp.asarray(rng.normal(size=(S * S * 3, 32)) * 0.3, jnp.float32)
  last = jnp.asarray(rng.normal(size=(32, K)), jnp.float32)
  return lambda x: jnp.tanh((x.reshape(len(x), -1) - 0.5) @ first) @ last


PREDICT, OTHER = network(0), network(1)
IMAGES = np.random.default_rng(2).random((N, S, S, 3)).astype(np.float32)
LABELS = np.asarray(PREDICT(IMAGES)).argmax(-1)
LABELS[3] = (LABELS[3] + 1) % K


def quick(predict=PREDICT, images=IMAGES, labels=LABELS, **changes):
  options = dict(
    norm='linf', version='custom', attacks=QUICK, batch_size=16,
    log=lambda line: None,
  )  # fmt: skip
  options |= changes
  options = {'eps': EPS.get(options['norm'], 0.1)} | options
  return autoattack(predict, images, labels, **options)


def flags(result):
  return {'clean': result.clean, 'robust': result.robust,
          **result.robust_by_attack}  # fmt: skip


def assert_same(a, b):
  a, b = flags(a), flags(b)
  assert a.keys() == b.keys()
  for name, value in a.items():
    np.testing.assert_array_equal(value, b[name], err_msg=name)


@pytest.mark.parametrize('norm', EPS)
def test_every_broken_image_has_an_example_that_holds(norm):
  result = quick(norm=norm, save_adversarial=True, individual=True)
  assert 0 < result.robust.sum() < result.clean.sum() == N - 1
  broken = result.clean & ~result.robust
  found = result.adversarial
  np.testing.assert_array_equal(np.isfinite(found).all((1, 2, 3)), broken)
  assert (found[broken] >= 0).all() and (found[broken] <= 1).all()
  assert (np.asarray(PREDICT(found[broken])).argmax(-1) != LABELS[broken]).all()
  delta = (found[broken].astype(np.float64) - IMAGES[broken]).reshape(
    broken.sum(), -1
  )
  order = {'linf': np.inf, 'l2': 2, 'l1': 1}[norm]
  far = np.linalg.norm(delta, order, axis=1)
  assert (far <= EPS[norm] * (1 + 1e-5) + 1e-6 * (norm == 'linf')).all()


@pytest.mark.parametrize('norm', EPS)
def test_the_verdict_is_the_same_however_images_are_grouped(norm):
  alone = jax.devices()[:1]
  whole = quick(norm=norm, batch_size=64, devices=alone)
  assert_same(whole, quick(norm=norm, batch_size=7, devices=alone))
  assert_same(whole, quick(norm=norm, batch_size=64, devices=jax.devices()))
  order = np.random.default_rng(0).permutation(N)
  mixed = quick(
    images=IMAGES[order], labels=LABELS[order], ids=np.arange(N)[order],
    norm=norm, batch_size=16,
  )  # fmt: skip
  for name, value in flags(mixed).items():
    np.testing.assert_array_equal(value, flags(whole)[name][order])


def test_individual_numbers_imply_the_cumulative_ones():
  one_by_one = quick(individual=True)
  together = quick()
  np.testing.assert_array_equal(one_by_one.robust, together.robust)
  left = one_by_one.clean
  for name, flag in one_by_one.robust_by_attack.items():
    record = one_by_one.attacks[name]
    assert record.individual_accuracy == flag.mean()
    left = left & flag
    assert record.robust_accuracy == left.mean()
    assert together.attacks[name].robust_accuracy == left.mean()
    assert together.attacks[name].individual_accuracy is None


def test_uint8_images_are_the_same_as_their_floats():
  whole = (IMAGES * 255).astype(np.uint8)
  floats = whole.astype(np.float32) / np.float32(255)
  assert_same(quick(images=whole), quick(images=floats))


def test_a_second_evaluation_compiles_nothing():
  compilations = perf.Compilations()

  def evaluate():
    # Other images may leave chunks of another size, and so another program.
    quick(images=IMAGES.copy(), attacks={'fab-t': {'steps': 3}})
    return compilations.number

  jax.clear_caches()
  compilations.count(True)
  first = evaluate()
  assert first > 0
  assert evaluate() == first
  compilations.count(False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cheat:
  """Returns points that are misclassified, and out of bounds if asked to."""

  how: str
  loop: str = 'auto'
  rounds: int = 1

  def __call__(self, keys, predict, image, label, rounds=None):
    far = jnp.where(predict(1 - image).argmax(-1) != label, 1, 0)
    far = image + far[:, None, None, None] * (1 - 2 * image)
    return {
      'far': far,
      'box': image - 0.5,
      'nan': image * jnp.nan,
      'nothing': image,
      'right': jnp.clip(image + 1e-6, 0, 1),
    }[self.how]


@pytest.fixture
def cheat(monkeypatch):
  monkeypatch.setattr(versions, 'calls', lambda attack: (1, 0))

  def run(how, **changes):
    plan = lambda *a: {'apgd-ce': Cheat(how=how)}
    monkeypatch.setattr(versions, 'plan', plan)
    return quick(**changes)

  return run


@pytest.mark.parametrize('how', ['far', 'box', 'nan'])
def test_successes_out_of_bounds_are_counted_and_refused(how, cheat):
  result = cheat(how)
  record = result.attacks['apgd-ce']
  np.testing.assert_array_equal(result.robust, result.clean)
  assert record.broken == 0 and record.refused > N / 2
  assert any('outside' in line for line in result.warnings)


def test_points_that_fool_nobody_are_no_successes(cheat):
  for how, unconfirmed in (('nothing', 0), ('right', N - 1)):
    record = cheat(how).attacks['apgd-ce']
    assert (record.broken, record.refused) == (0, 0)
    assert record.unconfirmed == unconfirmed


def test_what_search_breaks_must_fool_the_network_itself():
  result = quick(search=OTHER)
  record = result.attacks['apgd-ce']
  assert record.unconfirmed > 0 and record.refused == 0
  assert result.robust_accuracy > quick().robust_accuracy


def test_the_same_call_goes_on_and_the_file_says_what_was_found(tmp_path):
  whole = quick()
  first = quick(folder=tmp_path, about={'list': 'mine'})
  again = quick(folder=tmp_path, about={'list': 'mine'})
  assert_same(whole, first)
  assert_same(whole, again)
  found = json.loads((tmp_path / outcome_lib.FILE).read_text())
  assert found['about'] == {'list': 'mine'} and found['eps'] == EPS['linf']
  read = lambda name: [c == '1' for c in found['flags'][name]]
  np.testing.assert_array_equal(read('robust'), whole.robust)
  assert found['robust_accuracy'] == whole.robust_accuracy
  assert found['upper_bound'] and found['constraint_violations'] == 0


def test_a_chunk_is_never_done_twice(tmp_path, monkeypatch):
  whole = quick()
  whole = quick()
  attacked = []
  attack = job_lib.Job.attack

  def noted(self, name, turn, chosen):
    if len(attacked) == 4:
      attacked.append(None)
      raise KeyboardInterrupt
    attacked.append((name, turn, frozenset(chosen.tolist())))
    return attack(self, name, turn, chosen)

  monkeypatch.setattr(job_lib.Job, 'attack', noted)
  with pytest.raises(KeyboardInterrupt):
    quick(folder=tmp_path, batch_size=8)
  assert_same(quick(folder=tmp_path, batch_size=8), whole)
  assert len(attacked) > 10
  seen = set()
  for name, turn, chosen in filter(None, attacked):
    pairs = {(name, turn, image) for image in chosen}
    assert not pairs & seen
    seen |= pairs


OTHERS = {
  'data': dict(images=IMAGES[::-1].copy()),
  'labels': dict(labels=(LABELS + 1) % K),
  'eps': dict(eps=0.01),
  'norm': dict(norm='l2'),
  'version': dict(version='aa-2', attacks=None),
  'attacks': dict(attacks={'square': {'queries': 30}}),
  'key': dict(key=jax.random.key(1)),
  'network': dict(predict=OTHER),
  'individual': dict(individual=True),
}


@pytest.mark.parametrize('name', OTHERS)
def test_the_folder_of_another_evaluation_is_refused(name, tmp_path):
  quick(folder=tmp_path)
  before = (tmp_path / 'state.npz').read_bytes()
  with pytest.raises(UserError, match='holds another evaluation'):
    quick(folder=tmp_path, **OTHERS[name])
  assert (tmp_path / 'state.npz').read_bytes() == before


def test_weights_inside_a_partial_are_part_of_the_identity(tmp_path):
  net = lambda w, x: PREDICT(x) * w
  bind = lambda w: jax.tree_util.Partial(net, jnp.float32(w))
  quick(bind(1.0), folder=tmp_path)
  quick(bind(1.0), folder=tmp_path)
  with pytest.raises(UserError, match='weights_hash'):
    quick(bind(1.00001), folder=tmp_path)


def classes(number):
  return lambda x: PREDICT(x)[:, :number]


BAD = {
  'no images': (dict(images=IMAGES[:0], labels=LABELS[:0]), 'N > 0'),
  'flat images': (dict(images=IMAGES[0]), 'must be'),
  'above 1': (dict(images=IMAGES * 1.1), r'\[0, 1\]'),
  'NaN images': (dict(images=IMAGES * np.nan), r'\[0, 1\]'),
  'integers': (dict(images=(IMAGES * 9).astype(int)), 'floats or uint8'),
  'labels': (dict(labels=LABELS + K), 'not among the 10 classes'),
  'float labels': (dict(labels=LABELS * 1.0), 'integers'),
  'few labels': (dict(labels=LABELS[1:]), 'one for each'),
  'ids': (dict(ids=np.zeros(N, int)), 'distinct'),
  'NaN logits': (dict(predict=lambda x: PREDICT(x) * jnp.nan), 'not finite'),
  'float16': (dict(predict=lambda x: PREDICT(x).astype('float16')), 'float16'),
  'no logits': (dict(predict=lambda x: PREDICT(x)[0]), 'logits'),
  'one class': (dict(predict=classes(1), labels=LABELS * 0), 'one logit'),
  'eps 0': (dict(eps=0.0), 'finite and above 0'),
  'eps NaN': (dict(eps=float('nan')), 'finite and above 0'),
  'norm': (dict(norm='l3', eps=0.1), 'not one of'),
  'version': (dict(version='best', attacks=None), 'not one of'),
  'no attacks': (dict(attacks=None), 'needs attacks'),
  'attack': (dict(attacks=['pgd']), 'not among'),
  'option': (dict(attacks={'apgd-ce': {'step': 3}}), 'no option'),
  'standard attacks': (dict(version='standard'), 'only for version'),
  'batch': (dict(batch_size=0), 'below 1'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input_is_one_clear_error(name):
  changes, message = BAD[name]
  with pytest.raises(UserError, match=message):
    quick(**changes)


def test_images_must_be_square_for_square():
  images = np.repeat(IMAGES, 2, axis=1)
  predict = lambda x: PREDICT(x[:, ::2])
  with pytest.raises(UserError, match='square images'):
    quick(predict, images=images, attacks={'square': {'queries': 3}})
  quick(predict, images=images, attacks={'fab-t': {'steps': 2}})


@pytest.mark.parametrize('number', [2, 3])
def test_few_classes_say_what_can_be_done(number):
  labels = np.asarray(classes(number)(IMAGES)).argmax(-1)
  with pytest.raises(UserError, match="'fab-t', 'square'"):
    quick(classes(number), labels=labels)
  result = quick(
    classes(number), labels=labels,
    attacks={k: v for k, v in QUICK.items() if k != 'apgd-t'},
  )  # fmt: skip
  assert result.signs['few_classes'] and result.clean.all()
  assert result.robust_accuracy < 1


def test_five_classes_have_four_targets():
  plan = versions.plan('standard', 'linf', 0.1, 5)
  assert {plan[k].target_classes for k in ('apgd-t', 'fab-t')} == {4}


def test_versions_are_those_of_the_authors():
  plan = lambda *a: versions.plan(*a, 0.5, 100)
  standard = plan('standard', 'linf')
  assert [*standard] == ['apgd-ce', 'apgd-t', 'fab-t', 'square']
  assert [a.rounds for a in standard.values()] == [1, 9, 9, 1]
  assert [a.rounds for a in plan('standard', 'l1').values()] == [5, 5, 9, 1]
  assert [*plan('plus', 'l2')] == [
    'apgd-ce', 'apgd-dlr', 'fab', 'square', 'apgd-t', 'fab-t'
  ]  # fmt: skip
  assert [a.rounds for a in plan('plus', 'l2').values()] == [5, 5, 5, 1, 9, 9]
  rand = plan('rand', 'linf')
  assert [*rand] == ['apgd-ce', 'apgd-dlr']
  assert {(a.eot, a.rounds) for a in rand.values()} == {(20, 1)}
  assert versions.calls(standard['apgd-ce']) == (101, 101)
  assert versions.calls(standard['apgd-t']) == (102, 101)
  assert versions.calls(standard['fab-t']) == (201, 100)
  assert versions.calls(standard['square']) == (5001, 0)


def test_one_evaluation_of_the_gradient_needs_no_keys():
  assert_same(quick(attacks={'apgd-ce': {'steps': 3, 'eot': 1}}),
              quick(attacks={'apgd-ce': {'steps': 3}}))  # fmt: skip


def test_a_random_network_is_called_with_keys():
  def noisy(x, keys):
    draw = lambda key: 0.01 * jax.random.normal(key, x.shape[1:])
    return PREDICT(x + jax.vmap(draw)(keys))

  attacks = {'apgd-ce': {'steps': 3, 'eot': 2}}
  result = quick(noisy, attacks=attacks)
  assert 0 < result.robust_accuracy < result.clean_accuracy
  assert not result.signs['randomised']
  assert_same(result, quick(noisy, attacks=attacks, batch_size=7))


class TestSigns:
  def test_images_that_are_wrong_anyway_may_have_no_gradient(self):
    order = np.argsort(np.asarray(PREDICT(IMAGES)), axis=-1)
    labels = np.where(np.arange(N) < 5, order[:, 0], order[:, -1])
    result = quick(labels=labels, attacks={'square': {'queries': 1}})
    assert result.signs['zero_gradients'] == 0

  def test_a_sound_network_raises_none(self):
    result = quick()
    assert result.warnings == []
    assert result.signs == {
      'randomised': False, 'softmax': False, 'few_classes': False,
      'zero_gradients': 0, 'operations': [], 'square_better': False,
    }  # fmt: skip

  def test_masked_gradients(self):
    # As robust as the sound one to whoever needs no gradient.
    masked = lambda x: jax.lax.stop_gradient(PREDICT(jnp.round(x * 64) / 64))
    labels = np.asarray(masked(IMAGES)).argmax(-1)
    result = quick(
      masked, labels=labels, batch_size=32,
      attacks={'apgd-ce': {'steps': 5}, 'square': {'queries': 300}},
    )  # fmt: skip
    assert result.signs['zero_gradients'] == N
    assert result.signs['square_better']
    assert 'rounds' in result.signs['operations']
    assert len(result.warnings) >= 3

  def test_random_networks(self):
    calls = iter(range(10**6))

    def noise():
      return np.random.default_rng(next(calls)).normal(size=K).astype('f4')

    def noisy(x):
      shape = jax.ShapeDtypeStruct((K,), jnp.float32)
      drawn = jax.lax.stop_gradient(jax.pure_callback(noise, shape))
      return PREDICT(x) + 0.3 * drawn[None]

    result = quick(noisy, attacks={'square': {'queries': 1}})
    assert result.signs['randomised']
    assert result.signs['operations'] == ['calls the host']

  def test_softmax(self):
    soft = lambda x: jax.nn.softmax(5 * PREDICT(x))
    result = quick(soft, attacks={'square': {'queries': 1}})
    assert result.signs['softmax'] and 'probabilities' in result.warnings[0]

  def test_a_gradient_step_inside_the_network(self):
    def purified(x):
      loss = lambda x: jnp.square(PREDICT(x)).sum()
      return PREDICT(jnp.clip(x - 1e-4 * jax.grad(loss)(x), 0, 1))

    result = quick(purified, attacks={'square': {'queries': 1}})
    assert result.signs['operations'] == ['takes derivatives']
