"""The attacks at 224 pixels and 1,000 classes: numbers of record_large.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.attacks import loops
from pinpp_jax.attacks.apgd import APGD
from pinpp_jax.attacks.fab import FAB, State
from pinpp_jax.attacks.square import Square
from tests.attacks import test_square_walks
from tests.attacks.walks import Run

EPS, SQUARE_EPS = 0.00035, 0.01
STEPS, FAB_STEPS, TARGETS = 20, 10, 9
KEPT = [0, 1, 2, 4, 5, 10, 20]
SCALE = {'stem': 0.003, 'conv': 0.01, 'dense': 0.1}


def forward(weights, x):
  """Returns logits; the same network as in record_large.py."""

  def conv(x, name, stride, edge):
    return jax.lax.conv_general_dilated(
      x, weights[name], (stride, stride), [(edge, edge)] * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip

  x = jax.nn.silu(conv(2 * x - 1, 'stem', 16, 0))
  x = jax.nn.silu(conv(x, 'conv', 2, 1))
  return x.mean((1, 2)) @ weights['dense']


@pytest.fixture
def large(recorded):
  """Returns (network, image, label, start), float64."""
  stored = recorded('large')
  full = lambda x: x.repeat(16, 1).repeat(16, 2).astype(np.float32)
  image = full(stored['image']) / np.float32(255)
  start = image + np.float32(EPS / 127) * full(stored['noise'])
  with jax.enable_x64(True):
    weights = {
      k: scale * jnp.asarray(stored[k], jnp.float64)
      for k, scale in SCALE.items()
    }
    net = jax.tree_util.Partial(forward, weights)
    label = jnp.asarray(stored['ranking'][:, 0], jnp.int32)
    double = lambda x: jnp.asarray(x, jnp.float64)
    return net, double(image), label, double(np.clip(start, 0, 1))


def expect(recorded, part):
  """Returns recorded arrays of one attack, by name."""
  prefix = f'{part}/'
  return {
    k.removeprefix(prefix): x
    for k, x in recorded('large').items()
    if k.startswith(prefix)
  }


def close(x, y):
  np.testing.assert_allclose(x, y, rtol=0, atol=1e-9)


@pytest.mark.parametrize('loss', ['ce', 'targeted_dlr'])
def test_apgd(loss, recorded, prints, large):
  expected = expect(recorded, f'apgd/{loss}')
  with jax.enable_x64(True):
    attack = APGD(eps=EPS, loss=loss, steps=STEPS, target_classes=TARGETS)
    run = Run(attack, *large)
    seen, _, end = run.walk()
  if loss == 'targeted_dlr':
    ranking = recorded('large')['ranking']
    np.testing.assert_array_equal(run.prepared.ranking, ranking)
  close(prints(seen[KEPT]), expected['prints'])
  close(prints(end.best_x), expected['best'])
  close(end.best_loss, expected['best_loss'])
  np.testing.assert_array_equal(end.robust, expected['robust'])


def test_fab(recorded, prints, large):
  expected = expect(recorded, 'fab')
  net, image, label, _ = large
  with jax.enable_x64(True):
    attack = FAB(eps=EPS, target_classes=TARGETS)
    keys = jax.random.split(jax.random.key(0), len(image))
    inputs = loops.Inputs(keys, net, image, label)
    result = jax.jit(lambda *a: attack.prepare(*a))(inputs)
    far = jnp.full(len(image), jnp.inf)
    target = result.ranking[:, TARGETS]
    state = State(image, image, far, target, result.robust)
    step = jax.jit(lambda *a: attack.step(*a))
    points = []
    for i in range(FAB_STEPS):
      points.append(prints(state.x))
      state = step(i, state, inputs)
  close(np.stack(points), expected['prints'])
  close(prints(state.best), expected['best'])
  assert np.isfinite(state.distance).any()


def test_square(recorded, prints, large):
  net, image, label, _ = large
  given = expect(recorded, 'square')
  with jax.enable_x64(True):
    attack = Square(eps=SQUARE_EPS)
    margins = test_square_walks.assert_goes(
      prints, given, attack, net, image, label
    )
  assert (np.diff(margins, axis=0) < 0).any()
