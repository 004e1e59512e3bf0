"""APGD averages gradients as AutoAttack does: numbers of record_rand.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.attacks import apgd
from pinpp_jax.attacks.apgd import APGD
from tests.attacks.walks import Run

EPS = {'linf': 0.05, 'l2': 0.3, 'l1': 1.2}
EOT, NOISE = 20, 0.03
CASES = [('linf', 'ce'), ('linf', 'dlr'), ('l2', 'ce'), ('l1', 'ce')]
CASES = [(*case, 'random') for case in CASES]
CASES += [('linf', 'ce', 'same'), ('l1', 'ce', 'same')]
KEPT = [0, 1, 5, 22, 23, 57, 100]


def count(keys, data):
  """Returns keys that say what was folded into them, the last two numbers."""
  before = jax.random.key_data(keys)[:, 1]
  now = jnp.full(before.shape, data, before.dtype)
  return jax.random.wrap_key_data(jnp.stack([before, now], 1))


def network(recorded, form):
  """Returns the perceptron, called with keys that `count` made."""
  net = recorded.network('mlp', np.float64)
  noise = jnp.asarray(recorded('apgd')['mlp/noise'], np.float64)

  def noisy(net, noise, x, keys):
    visit, sample = jax.random.key_data(keys)[0]
    call = (visit - 1) * EOT + sample
    return net(x + NOISE / 127 * jnp.roll(noise, call, 0))

  if form == 'same':
    return jax.tree_util.Partial(lambda net, x, keys: net(x), net)
  return jax.tree_util.Partial(noisy, net, noise)


def assert_walks_as_recorded(recorded, prints, norm, loss, form):
  """Compares every kept iterate and both ends of the walks, in float64."""
  with jax.enable_x64(True):
    image, label = recorded.images('mlp', np.float64)
    start = recorded.start('mlp', norm, EPS[norm], np.float64)
    attack = APGD(eps=EPS[norm], norm=norm, loss=loss, eot=EOT)
    seen, _, end = Run(
      attack, network(recorded, form), image, label, start
    ).walk()
  expected = lambda k: recorded('rand')[f'{norm}/{loss}/{form}/{k}']
  far = lambda x, k: np.abs(prints(x) - expected(k)).max(-1)
  best_loss = expected('best_loss')
  gap = far(seen[KEPT], 'prints')
  ends = np.stack(
    [
      far(end.best_x, 'best'),
      far(end.adversarial, 'adversarial'),
      # The ratio has poles.
      np.abs(end.best_loss - best_loss) / np.maximum(1, np.abs(best_loss)),
    ]
  )
  tolerance = 1e-5 if norm == 'l2' else 1e-9
  leaves, apart = ((x > tolerance).any(0) for x in (gap, ends))
  if norm == 'linf':
    # Where the label ranks third the ratio is 1, its gradient rounding alone.
    assert not ((leaves | apart) & (np.abs(best_loss - 1) > 1e-9)).any()
  # As without averages: near ties under L2, under L1 cuts that meet a change's
  # size within rounding, after which most ends meet again.
  assert leaves.mean() <= 0.04
  assert apart.mean() <= 0.02
  np.testing.assert_array_equal(end.robust, expected('robust'))


@pytest.mark.parametrize(('norm', 'loss', 'form'), CASES)
def test_walks_as_autoattack_does(
  norm, loss, form, recorded, prints, monkeypatch
):
  monkeypatch.setattr(apgd, '_fold', count)
  assert_walks_as_recorded(recorded, prints, norm, loss, form)
  robust = recorded('rand')[f'{norm}/{loss}/{form}/robust']
  assert robust.any() and not robust.all()


def test_every_pass_counts(recorded, prints, monkeypatch):
  repeat = apgd.pgd.repeat
  fewer = lambda times, body, carry: repeat(times - 1, body, carry)
  monkeypatch.setattr(apgd, '_fold', count)
  monkeypatch.setattr(apgd.pgd, 'repeat', fewer)
  with pytest.raises(AssertionError):
    assert_walks_as_recorded(recorded, prints, 'linf', 'ce', 'random')


def test_the_last_pass_says_what_is_seen(recorded, prints, monkeypatch):
  repeat = apgd.pgd.repeat

  def backwards(times, body, carry):
    def turned(carry):
      left, gradient, seen = carry
      after = body((times - 1 - left, gradient, seen))
      return left + 1, *after[1:]

    return repeat(times, turned, carry)

  monkeypatch.setattr(apgd, '_fold', count)
  monkeypatch.setattr(apgd.pgd, 'repeat', backwards)
  with pytest.raises(AssertionError):
    assert_walks_as_recorded(recorded, prints, 'linf', 'ce', 'random')
