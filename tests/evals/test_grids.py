import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.evals import grids


@pytest.mark.parametrize(
  'size', [(32, 32), (7, 21), (3, 4), (6, 5)], ids=lambda x: f'{x[0]}x{x[1]}'
)
def test_largest_equals_the_dense_computation(size):
  rng = np.random.default_rng(0)
  logits = jnp.array(rng.normal(size=(2, 6, 5, 9)), jnp.float32)
  dense = jax.image.resize(logits, (2, *size, 9), 'linear', antialias=False)
  found = grids.largest(logits, size)
  assert found.dtype == jnp.int32
  np.testing.assert_array_equal(found, dense.argmax(-1))


def test_largest_of_equals_is_the_first():
  logits = jnp.zeros((1, 2, 2, 3))
  for size in ((2, 2), (8, 8)):
    assert not grids.largest(logits, size).any()


@pytest.mark.parametrize('old, new', [(64, 224), (96, 64), (28, 28), (3, 7)])
def test_nearest_takes_the_cell_at_the_new_centre(old, new):
  grid = np.arange(2 * old * old).reshape(2, old, old)
  at = [int((i + 0.5) / new * old) for i in range(new)]
  np.testing.assert_array_equal(
    grids.nearest(grid, (new, new)), grid[:, at][:, :, at]
  )


@pytest.mark.parametrize('cell', [1, 2, 4, 8])
def test_eighth_pixels_are_those_of_the_coarse_labels(cell):
  pixels = np.arange(2 * 32 * 64).reshape(2, 32, 64)
  coarse = pixels[:, 4::8, 4::8]
  # Every cell has the value of its central pixel, and 8 i + 4 is the first of
  # the cell it lies in.
  labels = pixels[:, cell // 2 :: cell, cell // 2 :: cell]
  first = coarse + (cell // 2 * 65 if cell < 8 else 0)
  found = grids.at_eighth_pixels(labels, (32, 64))
  np.testing.assert_array_equal(found, first)
