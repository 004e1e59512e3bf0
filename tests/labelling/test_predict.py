"""Probabilities of the class's parts, on any number of devices the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
import standin

from pinpp_jax.errors import UserError
from pinpp_jax.labelling import predict


def batch(number, height=32, width=64):
  rng = np.random.default_rng(3)
  image = rng.integers(0, 256, (number, height, width, 3), np.uint8)
  return image, standin.labels().candidates[np.arange(number) % 2]


def test_probabilities_are_those_of_the_classs_parts_alone():
  logits = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
  ids = standin.labels().candidates[:2]
  found = np.asarray(predict.probabilities(jnp.float32(logits), jnp.array(ids)))
  assert ids.tolist() == [[0, 1, 2, 0, 0], [0, 3, 4, 5, 6]]
  first = special.softmax(logits[0, ..., :3], axis=-1)
  np.testing.assert_allclose(found[0, ..., :3], first, rtol=1e-5)
  assert not found[0, ..., 3:].any()
  np.testing.assert_allclose(
    found[1], special.softmax(logits[1], axis=-1), rtol=1e-5
  )


def test_one_device_and_eight_give_the_same_bits(monkeypatch):
  image, ids = batch(11)
  many = predict.Predictor(standin.Colours(), {}, 2)
  assert many.images == 16
  found = np.asarray(many(image, ids))[:11]
  devices = jax.local_devices()[:1]
  monkeypatch.setattr(jax, 'local_devices', lambda: devices)
  one = predict.Predictor(standin.Colours(), {}, 2)
  assert one.images == 2
  for start in range(0, 11, 2):
    rows = slice(start, min(start + 2, 11))
    expected = np.asarray(one(image[rows], ids[rows]))
    np.testing.assert_array_equal(
      found[rows], expected[: rows.stop - rows.start]
    )


def test_one_compilation_for_each_shape():
  predictor = predict.Predictor(standin.Colours(), {}, 1)
  for number in (8, 3, 1, 8):
    for shape in ((32, 64), (64, 32)):
      predictor(*batch(number, *shape))
  assert predictor.compilations == 2


def test_a_batch_of_nothing_is_refused():
  with pytest.raises(UserError, match='batch_size=0'):
    predict.Predictor(standin.Colours(), {}, 0)
