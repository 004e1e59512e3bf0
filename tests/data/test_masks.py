"""Painting against a pixel-by-pixel oracle, and the PNG that carries it."""

import dataclasses
import io

import numpy as np
from PIL import Image
from pycocotools import mask as coco
import pytest

from pinpp_jax.data import masks
from pinpp_jax.data.release import nesting, painting
from pinpp_jax.data.release.findings import Findings
from pinpp_jax.data.release.reader import Release
from pinpp_jax.data.release.records import Annotation, ClassRecord, ImageRecord
from pinpp_jax.errors import UserError


def box(part, left, top, right, bottom, number=1):
  corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
  return Annotation(
    id=number,
    part=part,
    polygons=(np.array(corners, np.float64),),
    rle=None,
    entry={},
  )


def scene(annotations, parents, width=24, height=20):
  names = tuple(f'part {i}' for i in range(1, len(parents) + 1))
  image = ImageRecord(
    id=1,
    file_name='n00000001/n00000001_1.JPEG',
    width=width,
    height=height,
    annotations=tuple(annotations),
  )
  record = ClassRecord(
    wnid='n00000001',
    object_name='thing',
    part_names=names,
    generic_names=names,
    category_ids=tuple(range(len(names))),
    parents=tuple(parents),
    images=(image,),
  )
  return image, record


def oracle(image, record):
  """The rule of the documentation, one pixel after another."""
  above = nesting.ancestors(record.parents)
  layers = []
  for annotation in image.annotations:
    flat = [p.ravel().tolist() for p in annotation.polygons]
    runs = coco.frPyObjects(flat, image.height, image.width)
    pixels = coco.decode(runs).any(axis=-1)
    name = record.part_names[annotation.part - 1]
    layers.append((int(pixels.sum()), name, annotation.part, pixels))
  result = np.zeros((image.height, image.width), np.uint8)
  for y in range(image.height):
    for x in range(image.width):
      here = [layer for layer in layers if layer[3][y, x]]
      parts = {layer[2] for layer in here}
      free = [
        layer
        for layer in here
        if not any(layer[2] in above[other - 1] for other in parts)
      ]
      smallest = min((layer[0] for layer in free), default=0)
      ties = [layer for layer in free if layer[0] == smallest]
      if ties:
        result[y, x] = max(ties, key=lambda layer: layer[1])[2]
  return result


def random_scene(rng):
  count = int(rng.integers(1, 6))
  parents = [
    tuple(int(p) for p in range(1, i) if rng.random() < 0.35)
    for i in range(1, count + 1)
  ]
  annotations = []
  for number in range(int(rng.integers(1, 9))):
    ring = rng.uniform([-4, -4], [28, 24], (int(rng.integers(3, 7)), 2))
    annotations.append(
      Annotation(
        id=number,
        part=int(rng.integers(1, count + 1)),
        polygons=(np.round(ring, 1),),
        rle=None,
        entry={},
      )
    )
  return scene(annotations, parents)


@pytest.mark.parametrize('seed', range(40))
def test_painting_is_that_of_the_rule_in_any_order(seed):
  rng = np.random.default_rng(seed)
  image, record = random_scene(rng)
  expected = oracle(image, record)
  for _ in range(3):
    order = rng.permutation(len(image.annotations))
    shuffled = dataclasses.replace(
      image, annotations=tuple(image.annotations[i] for i in order)
    )
    painted = painting.paint(shuffled, record)
    np.testing.assert_array_equal(painted.mask, expected)


def test_contained_parts_are_seen_even_when_they_are_larger():
  image, record = scene([box(2, 0, 0, 20, 16), box(1, 4, 4, 8, 8)], [(), (1,)])
  painted = painting.paint(image, record)
  assert set(np.unique(painted.mask)) == {0, 2}
  assert painted.vanished == (1,)
  assert painted.undeclared == 0


def test_containment_reaches_over_a_part_that_is_not_annotated():
  # 3 in 2 in 1; there is no 2 in the image, and 1 is smaller than 3.
  parents = [(), (1,), (2,)]
  image, record = scene([box(1, 4, 4, 8, 8), box(3, 0, 0, 16, 16)], parents)
  assert not (painting.paint(image, record).mask == 1).any()


def test_undeclared_overlaps_are_counted_in_pixels():
  image, record = scene([box(1, 0, 0, 10, 10), box(2, 6, 6, 20, 18)], [(), ()])
  painted = painting.paint(image, record)
  assert painted.undeclared == 16
  assert (painted.mask == 1).sum() == 100  # the smaller one is whole


def test_parts_too_small_for_a_pixel_are_named():
  image, record = scene([box(1, 3.1, 3.1, 3.2, 3.2, number=9)], [()])
  assert painting.paint(image, record).empty == (9,)


def test_several_polygons_of_an_annotation_are_united():
  one, other = box(1, 0, 0, 5, 5), box(1, 3, 3, 9, 9)
  both = dataclasses.replace(one, polygons=one.polygons + other.polygons)
  expected = painting.rasterise(one, 20, 24) | painting.rasterise(other, 20, 24)
  np.testing.assert_array_equal(painting.rasterise(both, 20, 24), expected)


def test_real_polygons_rasterise_as_in_pycocotools(pin_real):
  record = Release(pin_real, Findings()).load('n02219486')
  for image in record.images[:10]:
    for annotation in image.annotations:
      runs = coco.frPyObjects(
        annotation.entry['segmentation'], image.height, image.width
      )
      expected = coco.decode(coco.merge(runs)).astype(bool)
      found = painting.rasterise(annotation, image.height, image.width)
      np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('size', [(1, 1), (40, 57), (300, 200)])
def test_png_keeps_every_index_and_says_the_same_twice(size):
  rng = np.random.default_rng(3)
  mask = rng.integers(0, 256, size, np.uint8)
  png = masks.encode(mask)
  assert png == masks.encode(mask.copy(order='F'))
  np.testing.assert_array_equal(masks.decode(png), mask)
  with Image.open(io.BytesIO(png)) as image:
    # A palette would be turned into colours by OpenCV and TensorFlow.
    assert image.mode == 'L'


def test_masks_that_do_not_fit_are_refused():
  with pytest.raises(UserError, match='8 bits'):
    masks.encode(np.array([[256]]))
  with pytest.raises(UserError, match='cannot be read'):
    masks.decode(b'no picture')
  with io.BytesIO() as stream:
    Image.new('RGB', (2, 2)).save(stream, 'PNG')
    with pytest.raises(UserError, match='RGB'):
      masks.decode(stream.getvalue())


def test_colours_are_all_different():
  assert len(np.unique(masks.palette(), axis=0)) == 256
  assert not masks.palette()[0].any()
