"""Attacks break what foolbox breaks, and what they return holds elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.attacks.apgd import APGD
from pinpp_jax.attacks.fab import FAB
from pinpp_jax.attacks.square import Square

EPS = {'linf': 0.045, 'l2': 0.8, 'l1': 6.0}


def cnn(weights, x):
  """Returns the logits of the small network, by NumPy in float64."""

  def conv(layer, x, stride):
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    x = x[:, ::stride, ::stride]
    x = np.einsum('bhwcij,ijco->bhwo', x, weights[f'cnn/{layer}/kernel'])
    return np.maximum(x + weights[f'cnn/{layer}/bias'], 0)

  x = conv('conv0', 2 * np.asarray(x, np.float64) - 1, 1)
  x = conv('conv2', conv('conv1', x, 2), 2).reshape(len(x), -1)
  return x @ weights['cnn/dense/kernel'] + weights['cnn/dense/bias']


def broken(recorded, norm, x, image, label):
  """Returns which images are broken; all must be valid, and none halfway."""
  x, image = np.asarray(x, np.float64), np.asarray(image, np.float64)
  assert x.min() >= 0 and x.max() <= 1
  far = np.abs(x - image).reshape(len(x), -1)
  size = {
    'linf': far.max(1), 'l2': np.sqrt((far**2).sum(1)), 'l1': far.sum(1)
  }[norm]  # fmt: skip
  assert (size <= EPS[norm] * (1 + 1e-5)).all()
  wrong = cnn(recorded('networks'), x).argmax(1) != label
  np.testing.assert_array_equal(wrong | (size == 0), True)
  return wrong


@pytest.fixture
def given(recorded):
  image, label = recorded.images('cnn')
  keys = jax.random.split(jax.random.key(0), len(image))
  return keys, recorded.network('cnn'), image, label


@pytest.mark.parametrize(
  'attack',
  [
    APGD(eps=EPS['l2'], norm='l2', steps=20),
    APGD(eps=EPS['l1'], norm='l1', steps=20),
    FAB(eps=EPS['linf'], steps=10, target_classes=2),
    Square(eps=EPS['linf'], queries=100),
  ],
  ids=['apgd l2', 'apgd l1', 'fab', 'square'],
)
def test_what_attacks_return_is_valid_elsewhere(attack, recorded, given):
  _, _, image, label = given
  wrong = broken(recorded, attack.norm, attack(*given), image, label)
  assert wrong.sum() > 3 and not wrong.all()


def test_breaks_what_foolbox_breaks(recorded, given):
  reason = "foolbox, of the extra 'dev', is an oracle here and no dependency"
  foolbox = pytest.importorskip('foolbox', reason=reason)
  _, predict, image, label = given
  pgd = foolbox.attacks.LinfPGD(steps=40)
  # It adds arrays of other ranks.
  with jax.numpy_rank_promotion('allow'):
    model = foolbox.models.JAXModel(jax.jit(predict), bounds=(0, 1))
    _, x, _ = pgd(model, image, label, epsilons=EPS['linf'])
  theirs = np.asarray(jnp.argmax(predict(x), -1) != label)
  assert 0.3 < theirs.mean() < 0.7
  first = APGD(eps=EPS['linf'])(*given)
  ours = broken(recorded, 'linf', first, image, label)
  assert ours[theirs].mean() >= 0.99
  targeted = APGD(eps=EPS['linf'], loss='targeted_dlr', target_classes=3)
  second = targeted(*given)
  ours |= broken(recorded, 'linf', second, image, label)
  assert ours[theirs].mean() >= 0.99
