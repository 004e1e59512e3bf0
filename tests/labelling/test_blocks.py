"""Which images are labelled, in which order, and how that is told."""

import pytest
import standin

from pinpp_jax.data.read.sources import Chosen
from pinpp_jax.errors import UserError
from pinpp_jax.labelling import blocks


def source(number=12, classes=3):
  return standin.Pictures([(40, 30)] * number, classes)


def names(chosen):
  return [chosen.file_name(i) for i in range(len(chosen))]


def test_images_come_by_name_and_those_of_classes_without_parts_not_at_all():
  images = blocks.choose(source(), shard_size=3)
  found = names(images.chosen)
  assert found == sorted(found) and len(found) == 8
  assert {name.partition('/')[0] for name in found} == {*standin.WNIDS[:2]}
  assert [reason for _, reason in images.skipped] == [blocks.NO_PARTS] * 4
  assert {name.partition('/')[0] for name, _ in images.skipped} == {
    standin.WNIDS[2]
  }


def test_blocks_are_contiguous():
  images = blocks.choose(source(), shard_size=3)
  assert images.blocks == 3
  parts = [names(images.block(i)) for i in range(3)]
  assert [len(part) for part in parts] == [3, 3, 2]
  assert sum(parts, []) == names(images.chosen)


def test_a_first_look_is_spread_over_the_source():
  images = blocks.choose(source(100, 2), shard_size=4, limit=10)
  whole = names(blocks.choose(source(100, 2), shard_size=4).chosen)
  assert names(images.chosen) == whole[::10]
  many = blocks.choose(source(100, 2), shard_size=4, limit=1000)
  assert names(many.chosen) == whole


def test_the_order_of_the_source_does_not_matter():
  one = blocks.choose(source(), shard_size=3)
  other = blocks.choose(Chosen(source(), range(12)[::-1]), shard_size=5)
  assert names(one.chosen) == names(other.chosen)
  assert one.hash == other.hash
  fewer = blocks.choose(source(), shard_size=3, limit=7)
  assert fewer.hash != one.hash


@pytest.mark.parametrize(
  ('images', 'fields', 'message'),
  [
    (12, {'shard_size': 0}, 'shard_size=0'),
    (12, {'shard_size': 2, 'limit': -1}, 'limit=-1'),
    (0, {'shard_size': 2}, 'None of the 0 images'),
  ],
)
def test_nothing_to_do(images, fields, message):
  with pytest.raises(UserError, match=message):
    blocks.choose(source(images), **fields)


def test_progress_tells_speed_and_time_left():
  times = iter([0.0, 10.0, 20.0])
  progress = blocks.Progress([1000, 500, 1500], clock=lambda: next(times))
  assert progress() == '1,000/3,000 images (33 %)  100.0 images/s  ETA 0:00:20'
  assert progress() == '1,500/3,000 images (50 %)  75.0 images/s  ETA 0:00:20'
