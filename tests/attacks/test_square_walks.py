"""Square goes where AutoAttack's does: numbers of record_square.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.attacks import loops, square
from pinpp_jax.attacks.square import Draws, Square

EPS = {'linf': 0.09, 'l2': 3.5, 'l1': 40.0}
QUERIES, STRIDE = 60, 25
KEPT = [0, 1, 2, 5, 10, 20, 30, 40, 50, 60]
# Under L2 the root of what is left of the radius, which is nothing but for
# rounding, feeds every proposal: 1e-16 becomes 1e-8.
TOLERANCE = {'linf': 1e-9, 'l2': 1e-8, 'l1': 1e-9}


def start(attack, image, signs, turned):
  """Returns the start that the recorded draws make."""
  into = attack._into_ball
  if attack.norm == 'linf':
    # (B, C, 1, W): stripes
    move = jnp.moveaxis(signs[0], 1, -1)
    return into(image, jnp.broadcast_to(move, image.shape))
  size = image.shape[1]
  count = square.grid(size)[2]
  # (tiles, B, C, 1, 1)
  signs = jnp.moveaxis(signs[..., 0, 0], 0, 1).reshape(
    len(image), count, count, -1
  )
  turned = turned[: count * count].reshape(count, count)
  one = lambda sign: square.tiles(attack.norm, turned, sign, size)
  return into(image, jax.vmap(one)(signs))


def draws(given, i, images):
  """Returns the draws of query i, which the images share but for signs."""
  ints, turned = given['ints'][i], False
  if len(ints) == 4:
    turned = given['turned'][len(given['turned']) - QUERIES + i]
  same = lambda x: jnp.broadcast_to(jnp.asarray(x), (images, *np.shape(x)))
  sign = given['signs'][i].reshape(-1, 3).astype(np.float64)
  return Draws(
    same(ints[:2].astype(np.int32)), same(ints[-2:].astype(np.int32)),
    same(turned), jnp.broadcast_to(sign, (images, 3)),
  )  # fmt: skip


def assert_goes(prints, given, attack, network, image, label):
  """Compares the margins after every query and the kept points, in float64."""
  keys = jax.random.split(jax.random.key(0), len(image))
  inputs = loops.Inputs(keys, network, image, label)
  begin = jax.jit(lambda *a: start(attack, image, *a))
  signs = jnp.asarray(given['start'], jnp.float64)
  x = begin(signs, jnp.asarray(given['turned']))
  margin, fooled = jax.jit(square._evaluate)(inputs, x)
  carry = x, margin, fooled, jnp.ones(len(x), bool), keys
  # A closure, so that nothing compiled before a rule was changed is found.
  consider = jax.jit(lambda *a: attack.consider(*a))
  margins, points = [margin], [prints(x)]
  for i in range(QUERIES):
    side = attack.side(i * STRIDE, image.shape[1])
    carry = consider(carry, draws(given, i, len(x)), side, inputs)
    margins.append(carry[1])
    points.append(prints(carry[0]))
  margins, points = np.stack(margins), np.stack(points)[KEPT]
  tolerance = TOLERANCE[attack.norm]
  np.testing.assert_allclose(margins, given['margins'], rtol=0, atol=tolerance)
  np.testing.assert_allclose(points, given['prints'], rtol=0, atol=tolerance)
  return margins


def assert_goes_as_recorded(recorded, prints, norm):
  """Compares what is recorded on the small network."""
  prefix = f'{norm}/'
  given = {
    k.removeprefix(prefix): x
    for k, x in recorded('square').items()
    if k.startswith(prefix)
  }
  with jax.enable_x64(True):
    image, label = recorded.images('cnn', np.float64)
    net = recorded.network('cnn', np.float64)
    attack = Square(eps=EPS[norm], norm=norm)
    return assert_goes(prints, given, attack, net, image, label)


@pytest.mark.parametrize('norm', EPS)
def test_goes_as_autoattack_does(norm, recorded, prints):
  margins = assert_goes_as_recorded(recorded, prints, norm)
  falls = (margins[:-1] > 0) & (margins[1:] <= 0)
  # Among the images some fall on the way, and some resist.
  assert falls.any(0).sum() >= 5 and (margins[-1] > 0).sum() >= 5
  assert (np.diff(margins, axis=0) < 0).sum() > 100


def shifted(place, side, size, channels):
  return window(place + 1, side, size, channels)


def turned_over(norm, place, side, size, channels, turned):
  return pattern(norm, place, side, size, channels, ~turned)


window, pattern = square.window, square.eta
MUTATIONS = {
  'schedule': ('linf', 'HALVINGS', (10, 50, 200, 600, 1000, 2000, 4000)),
  'place': ('linf', 'window', shifted),
  'acceptance': ('linf', 'improves', lambda new, best: new < best + 0.02),
  'pattern': ('l2', 'eta', turned_over),
  'acceptance in l1': ('l1', 'improves', lambda new, best: new < best - 0.02),
}


@pytest.mark.parametrize('name', MUTATIONS)
def test_a_changed_rule_is_noticed(name, recorded, prints, monkeypatch):
  norm, field, change = MUTATIONS[name]
  monkeypatch.setattr(square, field, change)
  with pytest.raises(AssertionError):
    assert_goes_as_recorded(recorded, prints, norm)
