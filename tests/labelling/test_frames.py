"""What a network sees of an image, and that its answer comes back in place."""

import numpy as np
from PIL import Image
import pytest

from pinpp_jax.labelling import frames
from pinpp_jax.labelling.frames import Frame


@pytest.mark.parametrize(
  ('size', 'resized', 'padded'),
  [
    ((500, 375), (171, 128), (192, 128)),
    ((375, 500), (128, 171), (128, 192)),
    ((128, 128), (128, 128), (128, 128)),
    ((64, 64), (128, 128), (128, 128)),
    # A panorama: the longer side is 3 * 128, the shorter less than 128.
    ((5000, 500), (384, 38), (384, 128)),
    ((10000, 1), (384, 1), (384, 128)),
  ],
)
def test_images_keep_their_aspect_within_bounds(size, resized, padded):
  found = frames.fit(size, 128, multiple=64, max_aspect=3.0)
  assert (found.resized, found.padded) == (resized, padded)


def test_shapes_are_few():
  shapes = {
    frames.fit((w, h), 128, multiple=64, max_aspect=3.0).padded
    for w in range(10, 600, 7)
    for h in range(10, 600, 11)
  }
  # The longer side is 128, 192, ... 384; upright or not.
  assert len(shapes) == 9


def test_every_scale_is_seen_and_then_mirrored():
  found = frames.frames(
    (40, 30),
    image_size=64,
    scales=(0.5, 1.0),
    flip=True,
    multiple=32,
    max_aspect=3.0,
  )
  assert [f.padded for f in found] == [(64, 32), (96, 64)] * 2
  assert [f.flip for f in found] == [False, False, True, True]


@pytest.mark.parametrize('flip', [False, True])
def test_pixels_are_the_resized_image_on_the_mean_colour(flip):
  rng = np.random.default_rng(0)
  image = Image.fromarray(rng.integers(0, 256, (30, 41, 3), np.uint8))
  frame = Frame(size=(41, 30), resized=(50, 37), padded=(64, 64), flip=flip)
  found = frames.pixels(image, frame)
  shown = np.asarray(image.resize((50, 37), Image.Resampling.BICUBIC))
  assert found.shape == (64, 64, 3) and found.dtype == np.uint8
  np.testing.assert_array_equal(
    found[:37, :50], shown[:, ::-1] if flip else shown
  )
  assert (found[37:] == frames.FILL).all()
  assert (found[:, 50:] == frames.FILL).all()


def test_enlarging_whole_cells_equals_pillow():
  cells = np.random.default_rng(0).random((6, 8, 2), np.float32)
  frame = Frame(size=(71, 53), resized=(32, 24), padded=(32, 24))
  found = frames.sample(cells, frame)
  for channel in range(2):
    image = Image.fromarray(cells[..., channel])
    np.testing.assert_allclose(
      found[channel],
      np.asarray(image.resize((71, 53), Image.Resampling.BILINEAR)),
      atol=1e-5,
    )


@pytest.mark.parametrize('size', [(33, 47), (400, 300), (9, 7)])
@pytest.mark.parametrize('flip', [False, True])
def test_a_ramp_over_the_frame_is_a_ramp_over_the_file(size, flip):
  width, height = size
  frame = Frame(size=size, resized=(61, 45), padded=(96, 64), flip=flip)
  # Each cell holds its centre's column and row in the file.
  column = (np.arange(24) * 4 + 2) * width / 61
  row = (np.arange(16) * 4 + 2) * height / 45
  column = width - column if flip else column
  cells = np.stack(np.meshgrid(column, row), axis=-1).astype(np.float32)
  found = frames.sample(cells, frame)
  assert found.shape == (2, height, width)
  x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
  # Beyond the outermost centres the answer stays the same.
  edge = np.array([2 * width / 61, 2 * height / 45]) + 0.51
  inside = (
    (x > edge[0])
    & (x < width - edge[0])
    & (y > edge[1])
    & (y < height - edge[1])
  )
  np.testing.assert_allclose(
    found[:, inside], np.stack([x, y])[:, inside], rtol=1e-5, atol=1e-4
  )


def test_nothing_beyond_the_image_is_read():
  cells = np.zeros((16, 16, 1), np.float32)
  cells[5:], cells[:, 9:] = np.nan, np.nan
  frame = Frame(size=(90, 50), resized=(36, 20), padded=(64, 64))
  assert np.isfinite(frames.sample(cells, frame)).all()
