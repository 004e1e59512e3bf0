"""APGD walks where AutoAttack's does: numbers of record_apgd.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.attacks import apgd, apgd_dense, apgd_l1, loops
from pinpp_jax.attacks.apgd import APGD

EPS = {
  'cnn': {'linf': 0.045, 'l2': 0.8, 'l1': 6.0},
  'resnet': {'linf': 0.033, 'l2': 0.55, 'l1': 4.5},
  'mlp': {'linf': 0.05, 'l2': 0.3, 'l1': 1.2},
}
SOME = [('linf', 'dlr'), ('l2', 'targeted_dlr'), ('l1', 'ce')]
ALL = [(norm, loss) for norm in EPS['cnn'] for loss in apgd.LOSSES]
CASES = [('mlp', *case) for case in ALL] + [('cnn', *case) for case in ALL]
CASES += [('resnet', *case) for case in SOME]
KEPT = [0, 1, 2, 5, 15, 22, 23, 30, 42, 57, 63, 80, 94, 99, 100]
# Images whose whole walks are recorded.
WHOLE = {
  ('l1', 'ce'): [53, 79, 3],
  ('l1', 'dlr'): [29, 15, 5],
  ('l2', 'dlr'): [0, 1, 71],
}
TOLERANCE = {'linf': 1e-9, 'l2': 1e-5, 'l1': 1e-9}


class Run:
  """A round from the recorded start, one compiled step after the other."""

  def __init__(self, recorded, name, norm, loss, dtype, images=None):
    pick = lambda x: x if images is None else x[np.asarray(images)]
    self.attack = APGD(
      eps=EPS[name][norm], norm=norm, loss=loss, target_classes=1
    )
    image, label = (pick(x) for x in recorded.images(name, dtype))
    net = recorded.network(name, dtype)
    keys = jax.random.split(jax.random.key(0), len(image))
    self.inputs = loops.Inputs(keys, net, image, label)
    self.start = pick(recorded.start(name, norm, EPS[name][norm], dtype))
    # Closures, so that nothing compiled before a rule was changed is found.
    self.propose = jax.jit(lambda *a: self.attack.propose(*a))
    self.visit = jax.jit(lambda *a: self.attack.visit(*a))

  def begin(self):
    """Returns a state in which nothing counts yet but the start."""
    result = jax.jit(lambda *a: self.attack.prepare(*a))(self.inputs)
    state = jax.eval_shape(self.attack.start, 0, result, self.inputs)
    empty = lambda x: jnp.zeros(x.shape, x.dtype)
    around = apgd.Round(self.inputs.keys, result.ranking[:, -1], result.robust)
    walk = jax.tree.map(empty, state.walk)
    return apgd.State(around, walk._replace(x=self.start, best_x=self.start))

  def steps(self, forced=None):
    """Yields (state before, iterate, state after); `forced` are walked on."""
    state = self.begin()
    for i in range(self.attack.length):
      x, control = self.propose(i, state, self.inputs)
      there = x if forced is None else forced[i]
      after = self.visit(i, there, control, state, self.inputs)
      yield state, np.asarray(x), after
      state = after


def walk(recorded, name, norm, loss, dtype):
  """Returns (iterates, losses, the last walk), as float64 NumPy arrays."""
  seen, values, after = [], [], None
  for _, x, after in Run(recorded, name, norm, loss, dtype).steps():
    seen.append(x)
    if norm != 'l1':
      values.append(np.asarray(after.walk.control.last_loss))
  assert after is not None
  return np.stack(seen), np.array(values), jax.tree.map(np.asarray, after.walk)


def assert_walks_as_recorded(recorded, prints, name, norm, loss):
  """Compares every kept iterate and both ends of the walks, in float64."""
  with jax.enable_x64(True):
    seen, values, end = walk(recorded, name, norm, loss, np.float64)
  expected = lambda k: recorded('apgd')[f'{name}/{norm}/{loss}/{k}']
  gap = np.abs(prints(seen[KEPT]) - expected('prints')).max(-1)
  best_loss = expected('best_loss')
  ends = np.stack([
    np.abs(prints(end.best_x) - expected('best')).max(-1),
    np.abs(prints(end.adversarial) - expected('adversarial')).max(-1),
    # The ratio has poles.
    np.abs(end.best_loss - best_loss) / np.maximum(1, np.abs(best_loss)),
  ])  # fmt: skip
  flat = np.zeros((len(seen), gap.shape[1]), bool)
  if (norm, loss) == ('l2', 'dlr'):
    # Where the label ranks third the ratio is 1 but for its 1e-12, and so is
    # its gradient: rounding, of which a step makes a direction.
    flat = np.maximum.accumulate(np.abs(values - 1) < 1e-9)
    before = np.array(KEPT) - 1
    gap = np.where((before >= 0)[:, None] & flat[before], 0, gap)
    ends = np.where(flat[-1], 0, ends)
    assert flat[-1].mean() < 0.8 and flat[-1].any()
  tolerance = TOLERANCE[norm]
  # Under L2 a near tie takes another way, under L1 a cut that meets a change's
  # size within rounding counts one coordinate more; most ends meet again.
  few = 0 if norm == 'linf' else 0.02 * gap.shape[1]
  assert (gap > tolerance).any(0).sum() <= few
  assert (ends > tolerance).any(0).sum() <= few
  np.testing.assert_array_equal(end.robust, expected('robust'))


@pytest.mark.parametrize(('name', 'norm', 'loss'), CASES)
def test_walks_as_autoattack_does(name, norm, loss, recorded, prints):
  assert_walks_as_recorded(recorded, prints, name, norm, loss)
  broken = ~recorded('apgd')[f'{name}/{norm}/{loss}/robust']
  assert broken.any() and not broken.all()


@pytest.mark.parametrize(('norm', 'loss'), ALL)
def test_verdicts_agree_in_float32(norm, loss, recorded):
  end = walk(recorded, 'cnn', norm, loss, np.float32)[2]
  expected = lambda k: recorded('apgd')[f'cnn/{norm}/{loss}/single/{k}']
  differ = (end.robust != expected('robust')).sum()
  gap = np.abs(end.best_loss - expected('best_loss'))
  if norm == 'l1':
    # Sparse steps part ways in float32, where AutoAttack's own verdicts are
    # not those it has in float64: here too for 1 of these 32 images.
    assert differ <= 2
    return
  assert differ == 0
  assert np.median(gap) <= 1e-5
  assert gap[end.robust].max() <= 1e-2


@pytest.mark.parametrize('norm, loss', WHOLE)
def test_each_step_is_the_recorded_one(norm, loss, recorded):
  """Walks on from AutoAttack's iterates, whatever ours were.

  Among these are the images that leave the recorded walk.
  """
  whole = recorded('apgd')[f'mlp/{norm}/{loss}/whole']
  with jax.enable_x64(True):
    run = Run(recorded, 'mlp', norm, loss, np.float64, WHOLE[norm, loss])
    gaps, slopes = [], []
    for (before, x, _), there in zip(
      run.steps(jnp.asarray(whole)), whole, strict=True
    ):
      gaps.append(np.abs(x - there).max((1, 2, 3)))
      slopes.append(np.abs(before.walk.gradient).max((1, 2, 3)))
  gaps, slopes = np.array(gaps), np.array(slopes)
  # The first iterate is given, and no gradient leads to it.
  steep = slopes > 1e-9
  steep[0] = True
  assert steep.mean() > 0.3
  assert gaps[steep].max() <= 1e-9


def reset_last_loss(*args):
  return begin(*args)._replace(last_loss=args[-2])


def reset_previous(self, control, image, loss, best_x, *rest):
  control, jump = adapt(self, control, image, loss, best_x, *rest)
  wide = jump[:, None, None, None]
  previous = jnp.where(wide, best_x, control.previous)
  return control._replace(previous=previous), jump


def no_jump(*args):
  control, jump = adapt(*args)
  return control, jnp.zeros_like(jump)


Dense = apgd_dense.Dense
begin, adapt, move = Dense.begin, Dense.adapt, Dense.move
FEWER = lambda rises, window, rho: rises < rho * window
NO_DRIFT = lambda *args: move(*args[:-1], True)
NEVER = lambda control, best_loss: control.reduced & False
MUTATIONS = {
  'first comparison': ('linf', 'dlr', Dense, 'begin', reset_last_loss),
  'threshold': ('linf', 'dlr', apgd_dense, 'oscillates', FEWER),
  'reset momentum': ('linf', 'dlr', Dense, 'adapt', reset_previous),
  'no jump': ('linf', 'dlr', Dense, 'adapt', no_jump),
  'no momentum': ('linf', 'dlr', Dense, 'move', NO_DRIFT),
  'no plateau': ('linf', 'dlr', apgd_dense, 'stalls', NEVER),
  'radii': ('l1', 'ce', apgd_l1, 'RADII', (1.0, 1.0, 1.0)),
  'sparser': ('l1', 'ce', apgd_l1, 'SPARSER', 1.4),
  'shrunk': ('l1', 'ce', apgd_l1, 'SHRUNK', 0.9),
  'slower': ('l1', 'ce', apgd_l1, 'SLOWER', 1.4),
}  # fmt: skip


@pytest.mark.parametrize('name', MUTATIONS)
def test_a_changed_rule_is_noticed(name, recorded, prints, monkeypatch):
  norm, loss, owner, field, change = MUTATIONS[name]
  monkeypatch.setattr(owner, field, change)
  with pytest.raises(AssertionError):
    assert_walks_as_recorded(recorded, prints, 'mlp', norm, loss)
