import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance
import pytest

from pinpp_jax import augment
from pinpp_jax.augment import Augment
from pinpp_jax.errors import UserError

B, S, K = 4, 32, 5


@pytest.fixture
def batch():
  rng = np.random.default_rng(0)
  return {
    'image': rng.integers(0, 256, (B, S, S, 3), np.uint8),
    'label': np.arange(B, dtype=np.int32),
    'parts': rng.integers(0, 9, (B, S // 8, S // 8)).astype(np.int32),
    'id': np.arange(B, dtype=np.uint32),
  }


JITTER = jax.jit(augment.color_jitter, static_argnums=2)
PLAIN = Augment(num_classes=K, color_jitter=0.0)
MIXED = dataclasses.replace(PLAIN, mixup=0.8, cutmix=1.0, mix_probability=1.0)


def test_plain_batch_is_scaled_and_its_labels_smoothed(key, batch):
  out = jax.jit(PLAIN.__call__)(key, batch)
  np.testing.assert_allclose(out['image'], batch['image'] / 255, rtol=1e-6)
  assert out['image'].dtype == jnp.float32
  expected = np.eye(K)[batch['label']] * 0.9 + 0.1 / K
  np.testing.assert_allclose(out['label'], expected, rtol=1e-6)
  np.testing.assert_array_equal(out['class_index'], batch['label'])
  np.testing.assert_array_equal(out['id'], batch['id'])
  assert 'parts_other' not in out


def test_the_key_alone_decides(batch):
  key = fast_key(0)
  strong = Augment(num_classes=K, color_jitter=0.4, erasing=0.9)
  call = jax.jit(strong.__call__)
  one, again, other = (call(k, batch)['image'] for k in (key, key, fast_key(1)))
  np.testing.assert_array_equal(one, again)
  assert (one != other).any()
  assert (one >= 0).all() and (one <= 1).all()


def test_color_jitter_is_one_of_the_orders_pillow_allows(key):
  """Each image is some order of Pillow's three enhancements."""
  rng = np.random.default_rng(1)
  image = rng.integers(30, 220, (3, 24, 24, 3), np.uint8)
  out = JITTER(key, jnp.asarray(image / 255, jnp.float32), 0.3)
  enhance = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color]
  for i, k in enumerate(jax.random.split(key, 3)):
    order_key, factor_key = jax.random.split(k)
    factors = jax.random.uniform(factor_key, (3,), minval=0.7, maxval=1.3)
    expected = Image.fromarray(image[i])
    for kind in np.asarray(jax.random.permutation(order_key, 3)):
      expected = enhance[kind](expected).enhance(float(factors[kind]))
    # Pillow rounds to 8 bits after every one of them.
    np.testing.assert_allclose(out[i] * 255, np.asarray(expected), atol=3.5)


def test_color_factors_cover_their_range():
  image = jnp.full((400, 2, 2, 3), 0.5)  # grey: only brightness shows
  out = JITTER(fast_key(3), image, 0.1)[:, 0, 0, 0]
  assert out.min() < 0.455 and out.max() > 0.545
  assert out.min() >= 0.45 - 1e-6 and out.max() <= 0.55 + 1e-6


def test_erasing_replaces_rectangles_of_the_promised_size():
  image = jnp.full((400, S, S, 3), -1.0)  # no noise is negative
  out = jax.jit(augment.erase)(fast_key(0), image, 0.25)
  erased = np.asarray(out[..., 0] >= 0)
  hit = erased.any((1, 2))
  assert 0.17 < hit.mean() < 0.33
  for mask in erased[hit]:
    rows, columns = mask.any(1), mask.any(0)
    assert mask.sum() == rows.sum() * columns.sum()  # a full rectangle
    assert 0.01 < mask.mean() < 0.37
    assert 0.2 < rows.sum() / columns.sum() < 4.6


def fast_key(seed):
  """Compiles fast; but numbers for one image depend on the batch."""
  return jax.random.key(seed, impl='rbg')


def mixer(**change):
  return jax.jit(dataclasses.replace(MIXED, **change).__call__)


def test_mixup_blends_image_and_label_alike(batch):
  out = mixer(cutmix=0.0)(fast_key(0), batch)
  lam = out['parts_lam'][0, 0, 0]
  assert 0 < lam < 1 and (out['parts_lam'] == lam).all()
  image = batch['image'] / 255
  np.testing.assert_allclose(
    out['image'], lam * image + (1 - lam) * image[::-1], atol=1e-6
  )
  soft = np.eye(K)[batch['label']] * 0.9 + 0.1 / K
  np.testing.assert_allclose(
    out['label'], lam * soft + (1 - lam) * soft[::-1], atol=1e-6
  )
  np.testing.assert_array_equal(out['parts'], batch['parts'])
  np.testing.assert_array_equal(out['parts_other'], batch['parts'][::-1])


@pytest.mark.parametrize('offset', [0, 4])
def test_cutmix_pastes_pixels_and_the_cells_sampled_there(batch, offset):
  pasted_some = False
  call = mixer(mixup=0.0, grid_offset=offset)
  for seed in range(6):
    out = call(fast_key(seed), batch)
    image = batch['image'] / np.float32(255)
    pasted = (np.abs(out['image'] - image) > 1e-6).any(-1).any(0)
    pasted_some |= pasted.any()
    np.testing.assert_allclose(
      out['image'],
      np.where(pasted[None, :, :, None], image[::-1], image),
      atol=1e-6,
    )
    cells = pasted[offset::8, offset::8]
    np.testing.assert_array_equal(out['parts_lam'][0], 1 - cells)
    share = 1 - pasted.mean()
    soft = np.eye(K)[batch['label']] * 0.9 + 0.1 / K
    np.testing.assert_allclose(
      out['label'], share * soft + (1 - share) * soft[::-1], atol=1e-6
    )
  assert pasted_some


def test_mix_and_switch_probabilities(batch):
  call = jax.jit(
    dataclasses.replace(
      MIXED, mix_probability=0.5, switch_probability=0.3
    ).__call__
  )
  kinds = {'none': 0, 'mixup': 0, 'cutmix': 0}
  for seed in range(200):
    lam = call(fast_key(seed), batch)['parts_lam']
    values = np.unique(np.asarray(lam))
    if (values == 1).all():
      kinds['none'] += 1
    else:
      kinds['cutmix' if values.min() == 0 else 'mixup'] += 1
  # A small box may miss every sampled pixel and count as none.
  assert 75 < kinds['none'] < 130
  assert 45 < kinds['mixup'] < 95
  assert 10 < kinds['cutmix'] < 50


def test_boxes_follow_the_share():
  draw = jax.jit(jax.vmap(lambda k, s: augment.random_box(k, (64, 48), s)))
  keys = jax.random.split(fast_key(0), 500)
  share = jnp.linspace(0, 1, 500)
  top, bottom, left, right = (np.asarray(e) for e in draw(keys, share))
  for low, high, side in ((top, bottom, 64), (left, right, 48)):
    assert (low >= 0).all() and (high <= side).all() and (low <= high).all()
    full = 2 * ((side * np.sqrt(1 - np.asarray(share))).astype(int) // 2)
    assert (high - low <= full).all()
    inner = (low > 0) & (high < side)
    np.testing.assert_array_equal((high - low)[inner], full[inner])


def test_odd_batches_are_refused_only_if_they_are_mixed(key, batch):
  odd = {k: v[:3] for k, v in batch.items()}
  assert PLAIN(key, odd)['image'].shape[0] == 3
  with pytest.raises(UserError, match='even'):
    MIXED(key, odd)
