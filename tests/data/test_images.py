"""Pixels and label grids against Pillow run the long way round."""

import io

import numpy as np
from PIL import Image
import pytest

from pinpp_jax.data import views as views_lib
from pinpp_jax.errors import UserError

SIZES = [(500, 375), (375, 500), (333, 500), (64, 64), (37, 211), (256, 256)]


def picture(size, seed=0):
  rng = np.random.default_rng(seed)
  width, height = size
  return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def mask_of(size, seed=0):
  rng = np.random.default_rng(seed)
  width, height = size
  return rng.integers(0, 9, (height, width), np.uint8)


def encoded(image, kind, **options):
  stream = io.BytesIO()
  image.save(stream, kind, **options)
  return stream.getvalue()


class TestDecode:
  def test_tells_the_format_from_the_content(self):
    image = picture((30, 20))
    read = views_lib.decode(encoded(image, 'PNG'), 'n1/n1_1.JPEG')
    np.testing.assert_array_equal(np.asarray(read), np.asarray(image))

  def test_sixteen_bits_are_scaled_not_clipped(self):
    ramp = np.arange(0, 1 << 16, 257, dtype=np.uint16)
    deep = encoded(Image.fromarray(ramp[None]), 'PNG')
    read = np.asarray(views_lib.decode(deep, 'n1/n1_1.JPEG'))
    np.testing.assert_array_equal(read[0], np.arange(256)[:, None].repeat(3, 1))

  @pytest.mark.parametrize('dtype', [np.float32, np.int32])
  def test_a_picture_without_a_white_is_refused(self, dtype):
    deep = encoded(Image.fromarray(np.ones((4, 4), dtype)), 'TIFF')
    with pytest.raises(UserError, match='which value is white'):
      views_lib.decode(deep, 'n1/n1_1.JPEG')

  @pytest.mark.parametrize('mode', ['CMYK', 'L', 'RGB'])
  def test_gives_three_channels(self, mode):
    data = encoded(picture((30, 20)).convert(mode), 'JPEG')
    assert views_lib.decode(data, 'x').mode == 'RGB'

  def test_does_not_rotate(self):
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn by 90 degrees.
    data = encoded(picture((30, 20)), 'JPEG', exif=exif)
    assert views_lib.decode(data, 'x').size == (30, 20)

  @pytest.mark.parametrize('keep', [0, 10, 700])
  def test_names_an_unreadable_file(self, keep):
    data = encoded(picture((60, 50)), 'JPEG')[:keep]
    with pytest.raises(UserError, match='n1/n1_7.JPEG'):
      views_lib.decode(data, 'n1/n1_7.JPEG')

  def test_mask_keeps_the_indices_of_a_palette(self):
    mask = mask_of((30, 20))
    palette = Image.fromarray(mask).convert('P')
    palette.putdata(mask.ravel().tolist())
    palette.putpalette([5] * 768)
    read = views_lib.decode_mask(encoded(palette, 'PNG'), 'x')
    np.testing.assert_array_equal(read, mask)
    assert read.dtype == np.uint8

  def test_names_a_mask_of_colours(self):
    with pytest.raises(UserError, match='n1_3.*RGB'):
      views_lib.decode_mask(encoded(picture((9, 9)), 'PNG'), 'n1_3')


@pytest.mark.parametrize('bad', [0, 31, 225])
def test_sizes_no_network_divides_are_refused(bad):
  with pytest.raises(UserError, match=str(bad)):
    views_lib.check_size(bad)


class TestRandomBox:
  def test_stays_inside_and_within_its_limits(self):
    rng = np.random.default_rng(0)
    for _ in range(300):
      left, top, w, h = views_lib.random_box(rng, 500, 375)
      assert 0 <= left <= 500 - w and 0 <= top <= 375 - h
      # One pixel of rounding on each side.
      assert (w + 1) * (h + 1) > 0.08 * 500 * 375
      assert (w + 1) / (h - 1) > 3 / 4 and (w - 1) / (h + 1) < 4 / 3

  def test_area_is_uniform(self):
    rng = np.random.default_rng(0)
    boxes = [views_lib.random_box(rng, 400, 400) for _ in range(2000)]
    areas = np.array([w * h / 400**2 for _, _, w, h in boxes])
    # Large crops of extreme aspect do not fit and are drawn again.
    assert abs(np.mean(areas < 0.3) - 0.22 / 0.92) < 0.06
    aspects = np.log([w / h for _, _, w, h in boxes])
    assert abs(aspects.mean()) < 0.02

  @pytest.mark.parametrize(
    ('size', 'box'),
    [((1000, 10), (493, 0, 13, 10)), ((10, 1000), (0, 493, 10, 13))],
  )
  def test_falls_back_to_the_centre(self, size, box):
    rng = np.random.default_rng(0)
    assert views_lib.random_box(rng, *size, scale=(1, 1)) == box


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('offset', [0, 4, 7])
def test_training_grid_equals_resizing_the_mask(size, offset):
  rng = np.random.default_rng(1)
  mask = mask_of(size)
  for _ in range(20):
    view = views_lib.random_view(rng, size, 96)
    left, top, w, h = view.box
    square = Image.fromarray(mask).crop((left, top, left + w, top + h))
    square = square.resize((96, 96), Image.Resampling.NEAREST)
    if view.flip:
      square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    np.testing.assert_array_equal(
      views_lib.grid(mask, view, offset=offset),
      np.asarray(square)[offset::8, offset::8],
    )


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('image_size', [32, 64, 224])
def test_evaluation_grid_equals_resizing_the_mask(size, image_size):
  mask = mask_of(size)
  view = views_lib.central_view(size, image_size)
  resized = Image.fromarray(mask).resize(view.resized, Image.Resampling.NEAREST)
  x, y = view.corner
  square = np.asarray(resized)[y : y + image_size, x : x + image_size]
  np.testing.assert_array_equal(
    views_lib.grid(mask, view, 8, 4), square[4::8, 4::8]
  )


@pytest.mark.parametrize('length', [1, 2, 37, 333, 375, 500, 1999])
@pytest.mark.parametrize('resized', [32, 37, 224, 255, 341])
def test_nearest_equals_pillow(length, resized):
  line = Image.fromarray(np.arange(length, dtype=np.int32)[None])
  theirs = line.resize((resized, 1), Image.Resampling.NEAREST)
  np.testing.assert_array_equal(
    views_lib.nearest(length, resized), np.asarray(theirs)[0]
  )


def test_training_pixels_are_cropped_before_they_are_resized():
  rng = np.random.default_rng(2)
  image = picture((120, 90))
  for _ in range(10):
    view = views_lib.random_view(rng, image.size, 64)
    left, top, w, h = view.box
    expected = image.crop((left, top, left + w, top + h)).resize(
      (64, 64), Image.Resampling.BICUBIC
    )
    if view.flip:
      expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    ours = views_lib.pixels(image, view)
    np.testing.assert_array_equal(ours, np.asarray(expected))
    assert ours.flags.c_contiguous and ours.dtype == np.uint8


@pytest.mark.parametrize('flip', [0.0, 1.0])
def test_the_flip_has_its_probability(flip):
  rng = np.random.default_rng(0)
  views = [
    views_lib.random_view(rng, (50, 50), 32, flip=flip) for _ in range(20)
  ]
  assert {v.flip for v in views} == {flip == 1.0}


def test_image_and_mask_stay_aligned():
  # Where the picture *is* its mask, both views show the same squares.
  mask = np.zeros((160, 160), np.uint8)
  mask[40:120, 20:90] = 200
  image = Image.fromarray(np.repeat(mask[:, :, None], 3, axis=2))
  rng = np.random.default_rng(3)
  for _ in range(20):
    view = views_lib.random_view(rng, image.size, 64)
    seen = views_lib.pixels(image, view)[4::8, 4::8, 0].astype(int)
    labels = views_lib.grid(mask, view).astype(int)
    clear = (seen < 5) | (seen > 195)  # Away from the antialiased edge.
    np.testing.assert_array_equal((seen > 100)[clear], (labels > 0)[clear])


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('image_size', [32, 224])
def test_evaluation_pixels_are_a_resize_and_a_centre_crop(size, image_size):
  image = picture(size)
  short = round(256 * image_size / 224)
  ratio = short / min(size)
  width, height = (
    s if s == short else int(s)
    for s in (
      short if size[0] == min(size) else size[0] * ratio,
      short if size[1] == min(size) else size[1] * ratio,
    )
  )
  left = round((width - image_size) / 2)
  top = round((height - image_size) / 2)
  expected = image.resize((width, height), Image.Resampling.BICUBIC).crop(
    (left, top, left + image_size, top + image_size)
  )
  ours = views_lib.pixels(image, views_lib.central_view(size, image_size))
  np.testing.assert_array_equal(ours, np.asarray(expected))


@pytest.mark.parametrize(
  ('size', 'resized', 'corner'),
  [
    ((500, 375), (341, 256), (58, 16)),
    ((375, 500), (256, 341), (16, 58)),
    ((256, 256), (256, 256), (16, 16)),
    ((333, 499), (256, 383), (16, 80)),
  ],
)
def test_evaluation_view_rounds_as_torchvision(size, resized, corner):
  view = views_lib.central_view(size, 224)
  assert (view.resized, view.corner) == (resized, corner)
