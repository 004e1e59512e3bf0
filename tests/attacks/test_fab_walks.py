"""FAB walks where AutoAttack's does: numbers of record_fab.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.attacks import loops
from pinpp_jax.attacks.fab import FAB, State

EPS = {
  'cnn': {'linf': 0.045, 'l2': 0.8, 'l1': 6.0},
  'resnet': {'linf': 0.033, 'l2': 0.55, 'l1': 4.5},
}
NORMS = tuple(EPS['cnn'])
CASES = [('cnn', norm, 'targeted', 100) for norm in NORMS]
CASES += [('cnn', norm, 'nearest', 20) for norm in NORMS]
CASES += [('resnet', 'linf', 'targeted', 100)]
KEPT = [0, 1, 2, 3, 5, 10, 20, 40, 60, 80, 99]
TARGETS = 3


def random_start(norm, image, noise, eps):
  """Returns points at half the radius in the direction of given noise."""
  size = np.abs(noise)
  length = {
    'linf': size.max((1, 2, 3), keepdims=True),
    'l2': np.sqrt(np.square(size).sum((1, 2, 3), keepdims=True)),
    'l1': size.sum((1, 2, 3), keepdims=True),
  }[norm]
  return np.clip(image + eps / 2 * noise / length, 0, 1)


def assert_walks_as_recorded(recorded, prints, name, norm, form, steps, **new):
  """Compares kept points and the nearest found ones, in float64."""
  expected = lambda k: recorded('fab')[f'{name}/{norm}/{form}/{k}']
  right, targeted = expected('right'), form == 'targeted'
  noise = recorded('networks')['noise'][right].astype(np.float64)
  with jax.enable_x64(True):
    image, label = (x[right] for x in recorded.images(name, np.float64))
    net = recorded.network(name, np.float64)
    keys = jax.random.split(jax.random.key(0), len(image))
    inputs = loops.Inputs(keys, net, image, label)
    eps = EPS[name][norm]
    attack = FAB(eps=eps, norm=norm, target_classes=1, targeted=targeted, **new)
    prepare = jax.jit(lambda *a: attack.prepare(*a))
    result = prepare(inputs)
    np.testing.assert_array_equal(result.robust, True)
    x, target = image, result.ranking[:, 1]
    if not targeted:
      x = jnp.asarray(random_start(norm, np.asarray(image), noise, eps))
      target = label
    far = jnp.full(len(image), jnp.inf)
    state = State(x, image, far, target, result.robust)
    step = jax.jit(lambda *a: attack.step(*a))
    points, distances = [], []
    for i in range(steps):
      points.append(np.asarray(state.x))
      state = step(i, state, inputs)
      distances.append(np.asarray(state.distance))
  kept = [i for i in KEPT if i < steps]
  close = lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-9)
  close(prints(np.stack(points)[kept]), expected('prints'))
  close(prints(state.best), expected('best'))
  return np.stack(distances)


@pytest.mark.parametrize(('name', 'norm', 'form', 'steps'), CASES)
def test_walks_as_autoattack_does(name, norm, form, steps, recorded, prints):
  far = assert_walks_as_recorded(recorded, prints, name, norm, form, steps)
  assert (np.diff(np.nan_to_num(far, posinf=1e9), axis=0) <= 0).all()
  found = np.isfinite(far[-1])
  # Most images are misclassified somewhere, about half of them in the ball.
  assert found.mean() > 0.5
  inside = far[-1] <= EPS[name][norm]
  assert inside.any() and not inside.all()


@pytest.mark.parametrize('norm', NORMS)
def test_verdicts_agree_in_float32(norm, recorded):
  image, label = recorded.images('cnn')
  net = recorded.network('cnn')
  keys = jax.random.split(jax.random.key(0), len(image))
  attack = FAB(eps=EPS['cnn'][norm], norm=norm, target_classes=TARGETS)
  x = attack(keys, net, image, label)
  robust = jnp.argmax(net(x), -1) == label
  np.testing.assert_array_equal(robust, recorded('fab')[f'{norm}/robust'])
  assert robust.any() and not robust.all()


@pytest.mark.parametrize(
  ('norm', 'change'),
  [
    ('linf', {'alpha_max': 0.05}),
    ('l2', {'eta': 1.04}),
    ('l1', {'beta': 0.8}),
    ('linf', {'beta': 0.89}),
  ],
)
def test_a_changed_rule_is_noticed(norm, change, recorded, prints):
  case = ('cnn', norm, 'targeted', 100)
  with pytest.raises(AssertionError):
    assert_walks_as_recorded(recorded, prints, *case, **change)
