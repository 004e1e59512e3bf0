"""The segmenter's loss against loops over pixels, and what it ignores."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.errors import UserError
from pinpp_jax.objectives import OBJECTIVES, segment
from pinpp_jax.objectives.segment import Segment

# Three classes of 2, 3 and 1 parts; global ids 1..6.
CANDIDATES = np.array([[0, 1, 2, 0], [0, 3, 4, 5], [0, 6, 0, 0]], np.int32)
SIZE = 6


def make_batch(seed=0):
  rng = np.random.default_rng(seed)
  parts = np.stack(
    [
      rng.choice(np.unique(candidates), (SIZE, SIZE))
      for candidates in CANDIDATES
    ]
  )
  return {
    'image': rng.random((3, SIZE, SIZE, 3)).astype(np.float32),
    'parts': parts.astype(np.int32),
    'candidates': CANDIDATES,
    'source': np.ones(3, np.int32),
  }


def scores_of(seed=1):
  rng = np.random.default_rng(seed)
  return rng.normal(size=(3, SIZE, SIZE, 4)).astype(np.float32) * 2


def pixels(scores, batch):
  """Yields (image, chances by id, true id) of every pixel."""
  for b, candidates in enumerate(batch['candidates']):
    count = 1 + np.count_nonzero(candidates)
    for i in range(SIZE):
      for j in range(SIZE):
        e = np.exp(scores[b, i, j, :count].astype(np.float64))
        chances = dict(
          zip(candidates[:count].tolist(), e / e.sum(), strict=True)
        )
        yield b, chances, int(batch['parts'][b, i, j])


def loss_of(scores, batch, **fields):
  loss, metrics = Segment(**fields).segmentation_loss(scores, batch)
  return float(loss), {k: float(v) for k, v in metrics.items()}


def test_equals_a_loop_over_pixels():
  batch, scores = make_batch(), scores_of()
  terms = [(c[t], max(c, key=c.get) == t) for _, c, t in pixels(scores, batch)]
  loss, metrics = loss_of(scores, batch)
  assert loss == pytest.approx(-np.mean([np.log(p) for p, _ in terms]), 1e-5)
  assert metrics['pixel_accuracy'] == pytest.approx(
    np.mean([right for _, right in terms])
  )


def test_dice_equals_its_definition():
  batch, scores = make_batch(), scores_of()
  values = []
  for b in range(3):
    own = [(c, t) for which, c, t in pixels(scores, batch) if which == b]
    for k in {t for _, t in own}:
      both = sum(c[k] for c, t in own if t == k)
      size = sum(c[k] for c, _ in own) + sum(t == k for _, t in own)
      values.append(1 - 2 * both / size)
  loss, metrics = loss_of(scores, batch, dice=0.5)
  assert metrics['dice_loss'] == pytest.approx(np.mean(values), 1e-5)
  assert loss == pytest.approx(
    metrics['pixel_loss'] + 0.5 * metrics['dice_loss']
  )


@pytest.mark.parametrize('dice', [0.0, 1.0])
def test_scores_behind_the_last_part_do_not_matter(dice):
  batch, scores = make_batch(), scores_of()
  other = scores.copy()
  other[0, ..., 3] += 100
  other[2, ..., 2:] -= 100
  assert loss_of(scores, batch, dice=dice) == loss_of(other, batch, dice=dice)


@pytest.mark.parametrize('dice', [0.0, 1.0])
def test_ignored_pixels_and_images_change_nothing(dice):
  batch, scores = make_batch(), scores_of()
  batch['source'] = np.array([1, 0, 2], np.int32)
  batch['parts'][0, :2] = -1
  batch['parts'][2, 3] = -1
  before = loss_of(scores, batch, dice=dice)
  scores[1] += np.random.default_rng(2).normal(size=scores[1].shape)
  scores[0, :2] += 5.0
  scores[2, 3] *= -1
  assert loss_of(scores, batch, dice=dice) == before


def test_pseudo_labels_weigh_as_told():
  batch, scores = make_batch(), scores_of()
  batch['source'] = np.array([1, 2, 2], np.int32)
  single = []
  for b in range(3):
    alone = batch | {'source': np.where(np.arange(3) == b, 1, 0)}
    single.append(loss_of(scores, alone)[0])
  loss, _ = loss_of(scores, batch, pseudo_weight=0.25)
  expected = np.average(single, weights=[1, 0.25, 0.25])
  assert loss == pytest.approx(expected, 1e-5)


def test_nothing_to_learn_from_has_no_loss_and_no_gradient():
  batch = make_batch() | {'source': np.zeros(3, np.int32)}
  value, gradient = jax.value_and_grad(
    lambda s: Segment(dice=1.0).segmentation_loss(s, batch)[0]
  )(scores_of())
  assert value == 0
  np.testing.assert_array_equal(gradient, 0)


def test_coarse_scores_are_resized_to_the_labels():
  batch = make_batch()
  coarse = scores_of()[:, ::2, ::2]
  fine = jax.image.resize(coarse, (3, SIZE, SIZE, 4), 'linear')
  # Behind the last part a score is impossible before it is resized.
  assert loss_of(coarse, batch)[0] == pytest.approx(loss_of(fine, batch)[0])


def test_labels_become_places_among_the_candidates():
  parts = np.array([[[0, 2, -1]], [[3, 0, 5]], [[6, 0, 0]]])
  local = segment.local_labels(jnp.asarray(parts), jnp.asarray(CANDIDATES))
  np.testing.assert_array_equal(local, [[[0, 2, -1]], [[1, 0, 3]], [[1, 0, 0]]])


class Net(nn.Module):
  """Scores candidates from almost nothing."""

  @nn.compact
  def __call__(self, image, *, train, parts=True, candidates=None):
    x = nn.BatchNorm(use_running_average=not train)(image)
    scores = nn.Dense(7)(x)
    if candidates is not None:
      scores = jax.vmap(lambda s, ids: s[..., ids])(scores, candidates)
    return {'parts': [scores]}


def test_as_an_objective(key):
  batch, model = make_batch(), Net()
  variables = model.init(key, batch['image'], train=False)
  objective = OBJECTIVES['segment'](dice=0.5)
  loss, (stats, metrics) = objective(model, variables, batch, key)
  assert loss == metrics['loss'] > 0
  assert set(metrics) == {'loss', 'pixel_loss', 'dice_loss', 'pixel_accuracy'}
  old = variables['batch_stats']
  assert jax.tree.structure(stats) == jax.tree.structure(old)
  with pytest.raises(UserError, match='mix_probability'):
    objective(model, variables, batch | {'parts_other': 0}, key)
