"""Batches: what is in them, that each example is there once, and resuming."""

import itertools
import pickle
import time

import built
import grain
import numpy as np
from orbax.checkpoint import v1 as ocp
from PIL import Image
import pytest

from pinpp_jax import data
from pinpp_jax.data import views
from pinpp_jax.data.batches import shared_memory
from pinpp_jax.data.read import readable
from pinpp_jax.errors import UserError

LABELS = built.labels()


class Fake:
  """Tiny pictures in memory; every third example has no part mask."""

  labels = LABELS

  def __init__(self, size=10, broken=None, mask_size=None, part=0):
    self.size = size
    self.broken = broken
    self.mask_size = mask_size
    self.part = part

  def __len__(self):
    return self.size

  def file_name(self, index):
    return f'{built.WNIDS[index % 3]}/{built.WNIDS[index % 3]}_{index}.JPEG'

  def __getitem__(self, index):
    if not 0 <= index < self.size:
      raise IndexError(index)
    size, label = (30 + index, 40), index % 3
    mask = built.local_mask(index, self.mask_size or size, built.PARTS[label])
    image = built.encoded(built.picture(index, size), 'PNG')
    return data.Example(
      image=b'not an image' if index == self.broken else image,
      part_mask=None if label == 2 else built.encoded(mask + self.part, 'PNG'),
      label=label,
      file_name=self.file_name(index),
      source=('human', 'pseudo', 'none')[label],
      wnid=built.WNIDS[label],
    )


def training(source, **fields):
  fields = {'batch_size': 4, 'image_size': 32, 'seed': 0} | fields
  return data.training(source, **fields)


def evaluation(source, **fields):
  fields = {'batch_size': 4, 'image_size': 32} | fields
  return data.evaluation(source, **fields)


def take(batches, count):
  return list(itertools.islice(iter(batches), count))


def indices(batches, count):
  return np.concatenate([b['index'] for b in take(batches, count)])


def assert_equal(ours, theirs):
  assert len(ours) == len(theirs)
  for a, b in zip(ours, theirs, strict=True):
    assert a.keys() == b.keys()
    for key in a:
      np.testing.assert_array_equal(a[key], b[key], strict=True)


class TestContents:
  @pytest.mark.parametrize('make', [training, evaluation])
  def test_shapes_and_types(self, make):
    batch = next(iter(make(Fake(), image_size=64)))
    expected = {
      'image': ((4, 64, 64, 3), np.uint8),
      'label': ((4,), np.int32),
      'parts': ((4, 8, 8), np.int32),
      'candidates': ((4, 1 + LABELS.max_parts), np.int32),
      'source': ((4,), np.int32),
      'index': ((4,), np.int32),
      'id': ((4,), np.uint32),
    }
    if make is evaluation:
      expected['mask'] = ((4,), np.float32)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == expected

  @pytest.mark.parametrize('make', [training, evaluation])
  def test_labels_sources_and_ids(self, make):
    source = Fake()
    batch = next(iter(make(source)))
    for index, label, who, number in zip(
      batch['index'], batch['label'], batch['source'], batch['id'], strict=True
    ):
      assert label == index % 3 and who == (1, 2, 0)[index % 3]
      assert number == data.example_id(source.file_name(index))

  @pytest.mark.parametrize('make', [training, evaluation])
  def test_candidates_are_background_and_the_parts_of_the_class(self, make):
    for batch in take(make(Fake()), 2):
      for label, ids, parts in zip(
        batch['label'], batch['candidates'], batch['parts'], strict=True
      ):
        wanted = [0] + [
          p.global_id for p in LABELS.of_class(LABELS.wnids[label])
        ]
        assert ids[: len(wanted)].tolist() == wanted
        assert not ids[len(wanted) :].any()
        assert set(np.unique(parts)) <= set(wanted)

  @pytest.mark.parametrize('make', [training, evaluation])
  def test_every_pixel_may_be_labelled(self, make):
    fine = next(iter(make(Fake(), cell=1, grid_offset=0)))
    coarse = next(iter(make(Fake())))
    assert fine['parts'].shape == (4, 32, 32)
    np.testing.assert_array_equal(fine['parts'][:, 4::8, 4::8], coarse['parts'])

  def test_an_id_is_the_head_of_a_digest(self):
    # $ printf abc | sha256sum
    assert data.example_id('abc') == 0xBA7816BF

  def test_parts_are_global_and_of_the_class(self):
    batch = next(iter(training(Fake(9), batch_size=9)))
    for label, parts in zip(batch['label'], batch['parts'], strict=True):
      first, count = LABELS.first[label], LABELS.part_counts[label]
      allowed = {0, *range(first, first + count)}
      assert set(parts.ravel().tolist()) <= allowed
      assert (label == 2) == (not parts.any())

  def test_evaluation_equals_the_views_of_the_images(self, data_dir):
    source = data.Recorded(data_dir=str(data_dir), split='validation')
    for batch in evaluation(source, grid_offset=0, resize=1.5):
      for i in range(int(batch['mask'].sum())):
        row = source[batch['index'][i]]
        image = views.decode(row['image'], '')
        view = views.central_view(image.size, 32, 1.5)
        np.testing.assert_array_equal(
          batch['image'][i], views.pixels(image, view)
        )
        if row['part_mask'] is not None:
          local = views.decode_mask(row['part_mask'], '')
          first = LABELS.first[row['label']]
          expected = [
            [0, first, first + 1, first + 2][k]
            for k in views.grid(local, view, offset=0).ravel()
          ]
          assert batch['parts'][i].ravel().tolist() == expected

  def test_whole_views_of_square_images_show_the_mask(self):
    class Square(Fake):
      def __getitem__(self, index):
        mask = np.kron(np.eye(4, dtype=np.uint8), np.ones((8, 8), np.uint8))
        picture = np.repeat(mask[:, :, None] * 99, 3, axis=2)
        return super().__getitem__(0) | {
          'image': built.encoded(picture, 'PNG'),
          'part_mask': built.encoded(mask, 'PNG'),
        }

    fields = {'scale': (1, 1), 'ratio': (1, 1)}
    for flip in (0.0, 1.0):
      batch = next(iter(training(Square(), flip=flip, **fields)))
      expected = np.eye(4, dtype=np.int32)[:, :: -1 if flip else 1]
      np.testing.assert_array_equal(batch['parts'][0], expected)
      pixels = batch['image'][0, 4::8, 4::8, 0]
      np.testing.assert_array_equal(pixels, expected * 99)


class TestTrainingOrder:
  def test_an_epoch_holds_every_example_once(self):
    seen = indices(training(Fake(12)), 9).reshape(3, 12)
    for epoch in seen:
      assert sorted(epoch) == list(range(12))
    assert len({tuple(epoch) for epoch in seen}) == 3
    assert list(seen[0]) != sorted(seen[0])

  def test_batches_may_straddle_epochs(self):
    seen = indices(training(Fake(10)), 5)
    assert sorted(seen) == sorted([*range(10)] * 2)

  def test_one_example_is_enough(self):
    assert list(indices(training(Fake(1)), 2)) == [0] * 8

  def test_a_batch_may_be_larger_than_an_epoch(self):
    seen = indices(training(Fake(3), batch_size=6), 1)
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]

  def test_the_seed_decides(self):
    first, again = (take(training(Fake(12)), 4) for _ in range(2))
    assert_equal(first, again)
    other = take(training(Fake(12), seed=1), 4)
    assert any(
      (a['index'] != b['index']).any()
      for a, b in zip(first, other, strict=True)
    )

  def test_views_are_new_in_each_epoch(self):
    first, second = take(training(Fake(8), batch_size=8), 2)
    again = np.argsort(second['index'])[np.argsort(np.argsort(first['index']))]
    assert (first['image'] != second['image'][again]).any(axis=(1, 2, 3)).all()

  @pytest.mark.parametrize('count', [2, 3, 6])
  def test_the_global_batch_is_that_of_one_process(self, count):
    source, fields = Fake(14), {'batch_size': 6}
    shares = [
      take(training(source, process_index=i, process_count=count, **fields), 5)
      for i in range(count)
    ]
    together = [
      {k: np.concatenate([batch[k] for batch in parts]) for k in parts[0]}
      for parts in zip(*shares, strict=True)
    ]
    assert_equal(together, take(training(source, **fields), 5))

  def test_a_process_reads_its_own_rows_alone(self):
    class Noted(Fake):
      read = ()

      def __getitem__(self, index):
        self.read += (int(index),)
        return super().__getitem__(index)

    source = Noted(12)
    batches = training(
      source, process_index=1, process_count=2, threads=0, batch_size=4
    )
    seen = indices(batches, 6)
    assert len(seen) == 12
    assert sorted(source.read) == sorted(seen)

  def test_rows_of_one_batch_have_different_views(self):
    class Same(Fake):
      def __getitem__(self, index):
        return super().__getitem__(0)

    image = next(iter(training(Same())))['image']
    assert len(np.unique(image.reshape(4, -1), axis=0)) == 4

  def test_several_sources_are_mixed(self):
    seen = indices(training([Fake(5), Fake(7)], batch_size=12), 1)
    assert sorted(seen) == list(range(12)) and list(seen) != sorted(seen)

  @pytest.mark.parametrize('threads', [0, 1, 5])
  def test_threads_do_not_matter(self, threads):
    assert_equal(
      take(training(Fake(), threads=threads), 6),
      take(training(Fake(), threads=2), 6),
    )


class TestEvaluationOrder:
  @pytest.mark.parametrize('size', [1, 4, 10, 12, 13])
  @pytest.mark.parametrize('count', [1, 2, 4])
  def test_every_example_once_in_order(self, size, count):
    shares = [
      list(evaluation(Fake(size), process_index=i, process_count=count))
      for i in range(count)
    ]
    assert {len(share) for share in shares} == {-(-size // 4)}
    index = [
      np.concatenate([b['index'] for b in s]) for s in zip(*shares, strict=True)
    ]
    mask = [
      np.concatenate([b['mask'] for b in s]) for s in zip(*shares, strict=True)
    ]
    index, mask = np.concatenate(index), np.concatenate(mask)
    assert list(index) == [*range(size)] + [-1] * (len(index) - size)
    assert list(mask) == [1] * size + [0] * (len(index) - size)

  def test_padding_is_blank(self):
    batch = list(evaluation(Fake(5)))[-1]
    assert batch['image'][0].any()
    for key in ('image', 'label', 'parts', 'source', 'id'):
      assert not batch[key][1:].any()

  def test_it_can_be_run_again(self):
    batches = evaluation(Fake(6))
    assert len(batches) == 2
    assert_equal(list(batches), list(batches))

  def test_images_do_not_depend_on_the_batch(self):
    small = np.concatenate([b['image'] for b in evaluation(Fake(8))])
    large = next(iter(evaluation(Fake(8), batch_size=8)))['image']
    np.testing.assert_array_equal(small, large)


class TestResuming:
  @pytest.mark.parametrize('taken', [0, 1, 5])
  def test_state_continues_exactly(self, taken):
    whole = take(training(Fake()), 8)
    first = iter(training(Fake()))
    for _ in range(taken):
      next(first)
    state = first.get_state()
    second = iter(training(Fake(), threads=0))
    next(second)
    second.set_state(state)
    assert_equal([next(second) for _ in range(8 - taken)], whole[taken:])

  def test_state_is_small_and_plain(self):
    batches = iter(training(Fake()))
    next(batches)
    assert batches.get_state() == {'next_batch': 1}

  @pytest.mark.parametrize('saved_as', [None, 'process_3-of-8.json'])
  def test_orbax_keeps_it(self, tmp_path, saved_as):
    batches = iter(training(Fake()))
    for _ in range(3):
      next(batches)
    ocp.save_checkpointables(tmp_path / 'one', {'batches': batches})
    expected = [next(batches) for _ in range(3)]
    if saved_as:  # By another number of processes.
      file = next((tmp_path / 'one' / 'batches').glob('process_*'))
      file.rename(file.with_name(saved_as))
    again = iter(training(Fake()))
    ocp.load_checkpointables(tmp_path / 'one', {'batches': again})
    assert_equal([next(again) for _ in range(3)], expected)

  def test_another_number_of_processes_goes_on_with_the_same_batches(self):
    whole = take(training(Fake(13)), 6)
    state = {'next_batch': 3}
    shares = []
    for i in range(2):
      batches = iter(training(Fake(13), process_index=i, process_count=2))
      batches.set_state(state)
      shares.append([next(batches)['index'] for _ in range(3)])
    for one, other, both in zip(*shares, whole[3:], strict=True):
      np.testing.assert_array_equal(np.concatenate([one, other]), both['index'])

  def test_closing_ends_it(self):
    batches = iter(training(Fake()))
    next(batches)
    batches.close()
    batches.close()
    with pytest.raises(ValueError, match='closed'):
      next(batches)


class TestAhead:
  def test_the_state_counts_what_was_taken_not_what_was_put(self):
    put = []

    def note(batch):
      put.append(batch['index'])
      return batch['index'].sum()

    expected = [b['index'] for b in itertools.islice(training(Fake()), 6)]
    batches = iter(training(Fake()).put_ahead(note))
    assert next(batches) == expected[0].sum()
    deadline = time.monotonic() + 30
    # One that was taken, two that wait, and one in the hand of the thread.
    while len(put) < 4 and time.monotonic() < deadline:
      time.sleep(0.01)
    assert len(put) == 4
    state = batches.get_state()
    batches.close()
    assert state == {'next_batch': 1}
    again = iter(training(Fake()).put_ahead(note))
    again.set_state(state)
    assert [next(again) for _ in range(5)] == [e.sum() for e in expected[1:]]
    again.close()

  def test_a_mistake_arrives_where_the_batch_is_asked_for(self):
    batches = iter(training(Fake(broken=7)).put_ahead(lambda batch: batch))
    with pytest.raises(UserError, match='_7.JPEG'):
      for _ in range(9):
        next(batches)
    batches.close()


class TestReadable:
  def test_what_cannot_be_read_is_left_out_and_named(self):
    found, faults = readable.readable(Fake(broken=7), threads=2)
    assert list(found.indices) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert len(faults) == 1 and '_7.JPEG' in faults[0]
    seen = [i for b in itertools.islice(training(found), 9) for i in b['index']]
    assert sorted(seen) == sorted(4 * list(range(9)))

  def test_all_of_a_whole_source(self):
    found, faults = readable.readable(Fake(600), threads=2)
    assert list(found.indices) == list(range(600)) and not faults


class TestWorkers:
  def test_the_pipeline_can_be_sent(self):
    batches = pickle.loads(pickle.dumps(training(Fake())))
    assert_equal(take(batches, 3), take(training(Fake()), 3))

  def test_two_workers_make_the_same_batches(self, data_dir):
    source = data.Recorded(data_dir=str(data_dir), split='train')
    expected = take(training(source), 7)
    batches = iter(training(source, workers=2, threads=1))
    batches.set_state({'next_batch': 2})
    ours = [next(batches) for _ in range(5)]
    batches.close()
    assert_equal(ours, expected[2:])

  def test_a_worker_reports_what_it_cannot_read(self):
    with pytest.raises(UserError, match='n00000002_4.JPEG'):
      list(evaluation(Fake(6, broken=4), workers=1))

  def test_without_shared_memory_batches_come_through_pipes(self, monkeypatch):
    monkeypatch.setattr(shared_memory, 'room', lambda: 1000)
    expected = take(training(Fake()), 4)
    batches = iter(training(Fake(), workers=2, threads=1))
    ours = [next(batches) for _ in range(4)]
    batches.close()
    assert_equal(ours, expected)
    for array in ours[0].values():
      assert type(array) is np.ndarray  # Not one of Grain's in shared memory.

  def test_a_worker_killed_by_a_full_place_is_told_apart(self):
    lost = lambda code: RuntimeError(f'terminated with exit code -{code}.')
    assert '/dev/shm was full' in shared_memory.of_death(lost(7))
    assert 'memory ran out' in shared_memory.of_death(lost(9))
    assert not shared_memory.of_death(lost(11))

  @pytest.mark.parametrize('make', [training, evaluation])
  def test_the_size_of_a_batch_is_known_beforehand(self, make, monkeypatch):
    sizes = []
    monkeypatch.setattr(
      shared_memory, 'needed', lambda size, *rest: sizes.append(size) or 0
    )
    batches = iter(make(Fake(), workers=1, threads=1))
    batch = next(batches)
    batches.close()
    batch.pop('mask', None)
    assert sizes == [sum(array.nbytes for array in batch.values())]

  def test_they_are_grain_datasets(self):
    assert isinstance(training(Fake()), grain.IterDataset)
    doubled = training(Fake()).map(lambda batch: batch['index'] * 2)
    np.testing.assert_array_equal(
      next(iter(doubled)), 2 * indices(training(Fake()), 1)
    )


class TestMistakes:
  def test_an_unreadable_image_is_named(self):
    with pytest.raises(UserError, match='n00000002/n00000002_4.JPEG.*12 bytes'):
      take(training(Fake(6, broken=4)), 2)

  def test_a_mask_of_another_size(self):
    with pytest.raises(UserError, match='9 x 8 pixels, its image 30 x 40'):
      list(evaluation(Fake(1, mask_size=(9, 8))))

  def test_a_mask_of_another_class(self):
    with pytest.raises(UserError, match='holds part .* has 2 parts'):
      list(evaluation(Fake(1, part=7)))

  @pytest.mark.parametrize('make', [training, evaluation])
  @pytest.mark.parametrize(
    ('fields', 'message'),
    [
      ({'image_size': 100}, 'image_size=100'),
      ({'grid_offset': 8}, 'grid_offset=8'),
      ({'cell': 5}, 'cell=5'),
      ({'cell': 1, 'grid_offset': 1}, 'grid_offset=1'),
      ({'batch_size': 5, 'process_count': 2}, 'batch_size=5'),
      ({'batch_size': 0}, 'batch_size=0'),
    ],
  )
  def test_sizes_that_do_not_fit(self, make, fields, message):
    with pytest.raises(UserError, match=message):
      make(Fake(), **fields)

  @pytest.mark.parametrize('make', [training, evaluation])
  def test_empty_sources(self, make):
    with pytest.raises(UserError, match='0 examples'):
      make(Fake(0))


def test_pictures_are_not_mirrored_in_evaluation():
  picture = np.zeros((32, 32, 3), np.uint8)
  picture[:, 16:] = 255

  class Half(Fake):
    def __getitem__(self, index):
      mask = built.encoded(picture[:, :, 0] // 255, 'PNG')
      image = built.encoded(picture, 'PNG')
      return super().__getitem__(0) | {'image': image, 'part_mask': mask}

  batch = next(iter(evaluation(Half(), resize=1.0)))
  np.testing.assert_array_equal(batch['image'][0], picture)
  assert Image.fromarray(batch['image'][0]).getpixel((31, 0)) == (255,) * 3
  np.testing.assert_array_equal(batch['parts'][0], [[0, 0, 1, 1]] * 4)
