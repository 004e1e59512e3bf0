"""Labels equal a plain computation, image by image."""

import io

import numpy as np
from PIL import Image
import pytest
import standin

from pinpp_jax.data import labels as labels_lib
from pinpp_jax.data import masks
from pinpp_jax.data.read.sources import Chosen, ImageNet
from pinpp_jax.data.release.findings import Findings
from pinpp_jax.data.release.reader import Release
from pinpp_jax.errors import UserError
from pinpp_jax.labelling import labeller
from pinpp_jax.labelling.labeller import Labeller, Options
from pinpp_jax.labelling.predict import Predictor

SIDE = 64
SIZES = [
  (70, 50),
  (50, 70),
  (64, 64),
  (131, 97),
  (400, 30),
  (33, 200),
  (70, 51),
]


def make(batch_size=1, threads=2, **options):
  predictor = Predictor(standin.Colours(), {}, batch_size)
  options = {
    'image_size': SIDE,
    'multiple': 32,
    'batch_size': batch_size,
  } | options
  return Labeller(
    predictor, standin.labels(), Options(**options), threads=threads
  )


def drawn(found):
  return [
    (one.part_mask, one.confidence, one.part_confidence.tolist())
    for one in found
  ]


@pytest.mark.parametrize(
  'views',
  [
    {},
    {'flip': True},
    {'scales': (0.5, 1.0, 1.75)},
    {'scales': (0.75, 1.0), 'flip': True},
  ],
)
def test_equals_a_plain_computation(views):
  source = standin.Pictures(SIZES)
  found = make(**views)(source)
  for one, size in zip(found, SIZES, strict=True):
    p = standin.expected(
      one.example['image'], one.example['label'], side=SIDE, **views
    )
    mask = masks.decode(one.part_mask)
    assert mask.shape == size[::-1] == p.shape[:2]
    # Where two parts are as likely, float32 may decide otherwise.
    first, second = np.sort(p, axis=-1)[..., :-3:-1].transpose(2, 0, 1)
    clear = first - second > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(mask[clear], p.argmax(-1)[clear])
    assert one.confidence == pytest.approx(p.max(-1).mean(), abs=1e-4)
    sure = [
      p[..., i][p.argmax(-1) == i].mean() if (p.argmax(-1) == i).any() else 0
      for i in range(1, p.shape[-1])
    ]
    np.testing.assert_allclose(one.part_confidence, sure, atol=2e-3)


def test_the_views_matter_here():
  source = standin.Pictures(SIZES)
  plain, flipped = (drawn(make(flip=flip)(source)) for flip in (False, True))
  assert plain != flipped


def test_thresholds_drop_parts():
  source = standin.Pictures(SIZES)
  for before, after in zip(
    make()(source), make(min_confidence=0.8, min_area=0.1)(source), strict=True
  ):
    mask, kept = (masks.decode(one.part_mask) for one in (before, after))
    for part, sure in enumerate(before.part_confidence, start=1):
      stays = sure >= 0.8 and (mask == part).mean() >= 0.1
      assert (kept == part).sum() == ((mask == part).sum() if stays else 0)
      assert after.part_confidence[part - 1] == (sure if stays else 0)
    assert before.confidence == after.confidence


def test_threads_change_nothing():
  source = standin.Pictures(SIZES)
  assert drawn(make(threads=1)(source)) == drawn(make(threads=5)(source))


def test_neighbours_change_nothing():
  source = standin.Pictures(SIZES)
  whole = drawn(make()(source))
  apart = [drawn(make()(Chosen(source, [i])))[0] for i in range(len(source))]
  assert whole == apart


def test_nothing_is_compiled_after_warm_up():
  source = standin.Pictures(SIZES)
  made = make(scales=(0.5, 1.0))
  made(source)
  before = made.compilations
  made(source)
  made(Chosen(source, [3, 1]))
  assert made.compilations == before


def cut():
  return standin.picture(0, (90, 70))[:-400]


def grey_png():
  buffer = io.BytesIO()
  Image.new('L', (40, 60), 9).save(buffer, 'PNG')
  return buffer.getvalue()


@pytest.mark.parametrize(
  ('bad', 'reason'),
  [
    (b'', labeller.EMPTY),
    (b'no image at all', labeller.UNREADABLE),
    (cut(), labeller.UNREADABLE),
  ],
)
def test_a_bad_image_is_named_or_left_out(bad, reason):
  source = standin.Pictures([(70, 50), (70, 50), bad, (90, 70), (70, 50)])
  with pytest.raises(UserError, match=f'n00000001_2.JPEG: {reason}.*skip_bad'):
    make()(source)
  found = make(skip_bad=True)(source)
  assert [one.reason for one in found] == ['', '', reason, '', '']
  assert found[2].part_mask is None
  good = Chosen(source, [0, 1, 3, 4])
  assert drawn(found[:2] + found[3:]) == drawn(make()(good))


def test_other_formats_are_read():
  (found,) = make()(standin.Pictures([grey_png()]))
  assert masks.decode(found.part_mask).shape == (60, 40)


def test_photographs_get_masks_of_their_size(pin_real):
  table = labels_lib.from_classes(Release(pin_real, Findings()))
  source = ImageNet(path=str(pin_real), labels=table)
  sizes, some = set(), []
  for i in range(len(source)):
    with Image.open(io.BytesIO(source[i]['image'])) as image:
      if image.size not in sizes and len(sizes) < 8:
        sizes.add(image.size)
        some.append((i, image.size))
  assert len({width > height for width, height in sizes}) == 2
  labeller = Labeller(
    Predictor(standin.Colours(num_parts=table.num_parts), {}, 1),
    table,
    Options(image_size=SIDE),
  )
  found = labeller(Chosen(source, [i for i, _ in some]))
  for one, (i, (width, height)) in zip(found, some, strict=True):
    assert one.example['image'] == source[i]['image']
    mask = masks.decode(one.part_mask)
    assert mask.shape == (height, width)
    assert mask.max() <= table.part_counts[one.example['label']]


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'image_size': 0}, 'image_size=0 is below 1'),
    ({'scales': ()}, 'one or more positive'),
    ({'scales': (1.0, -0.5)}, 'one or more positive'),
    ({'multiple': 48}, 'multiple=48 is not a multiple of 32'),
    ({'max_aspect': 0.5}, 'max_aspect=0.5 is below 1'),
    ({'min_confidence': 1.5}, 'min_confidence=1.5 is not between'),
    ({'min_area': -0.1}, 'min_area=-0.1 is not between'),
  ],
)
def test_options_that_make_no_sense(options, message):
  with pytest.raises(UserError, match=message):
    Options(**{'image_size': 32} | options)
