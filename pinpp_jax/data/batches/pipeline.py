"""From a source to batches of numpy arrays, with Grain.

A batch is a dict; B is the global batch size over the number of processes, S
the image size, c the cell, m the most parts of a class. Only the finest label
grid travels, since coarser ones follow from it on the device:

  image       uint8 (B, S, S, 3)
  label       int32 (B,)            class index
  parts       int32 (B, S/c, S/c)   global part id, 0 for background
  candidates  int32 (B, 1 + m)      ids that the class admits, see LabelTable
  source      int32 (B,)            0 no part mask, 1 human, 2 pseudo
  index       int32 (B,)            position in the source
  id          uint32 (B,)           of the file name: the same in every split,
                                    see `example_id`
  mask        float32 (B,)          evaluation only: 1 real, 0 padding
"""

import dataclasses
import functools
import hashlib
import re
from typing import Any

import grain
import numpy as np

from pinpp_jax.data import views
from pinpp_jax.data.batches.prefetch import Batch, Batches
from pinpp_jax.data.read.sources import Concatenated, Example, Source
from pinpp_jax.errors import UserError

_VALIDATION = re.compile(r'/ILSVRC2012_val_(\d{8})\.JPEG$')

SOURCE_CODES = {'none': 0, 'human': 1, 'pseudo': 2}

Sources = Source | list[Source] | tuple[Source, ...]


def training(
  source: Sources,
  *,
  batch_size: int,
  image_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
  workers: int = 0,
  threads: int = 2,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  flip: float = 0.5,
  cell: int = views.CELL,
  grid_offset: int = views.CELL // 2,
) -> Batches:
  """Returns batches of random views, without end.

  Every epoch passes once through every example in a new order; a batch may
  straddle two epochs. The order and the views depend on `seed` alone, for any
  number of processes, workers and threads: each process makes its own rows of
  the same global batches, and reads nothing else.

  Args:
    source: If several, an epoch passes through all of them, mixed.
    batch_size: Over all processes.
    image_size: Side S of the views; a multiple of 32.
    seed: Decides everything that is random.
    process_index: Of this process.
    process_count: Number of processes that train together.
    workers: Worker processes; 0 works in threads of this process.
    threads: Batches made at the same time in each worker; 0 makes a batch
      when it is asked for.
    scale: Least and largest share of the image's area in a view.
    ratio: Least and largest aspect of a view.
    flip: Probability of mirroring.
    cell: Pixels along one side of a cell of the label grid.
    grid_offset: Pixel of its cell at which a label is sampled: half a cell is
      the centre, 0 the corner.

  Raises:
    UserError: If a size does not fit; while iterating, if an example cannot
      be read.
  """
  source = _one(source)
  _check(source, image_size, cell, grid_offset)
  size = _share(batch_size, process_count)
  view = RandomView(
    source=source,
    image_size=image_size,
    scale=scale,
    ratio=ratio,
    flip=flip,
    cell=cell,
    grid_offset=grid_offset,
  )
  # The 0 was a process's number once: runs keep the order they had.
  mixed = np.random.SeedSequence([seed, 0]).generate_state(1)[0]
  examples = (
    grain.MapDataset.range(len(source))
    .seed(int(mixed))
    .shuffle()
    .repeat()
    .random_map(view)
  )
  mine = Rows(examples, batch_size, first=process_index * size, count=size)
  return Batches(
    mine.batch(size, drop_remainder=True),
    workers=workers,
    threads=threads,
    batch_bytes=size * _row_bytes(view),
  )


def evaluation(
  source: Sources,
  *,
  batch_size: int,
  image_size: int,
  process_index: int = 0,
  process_count: int = 1,
  workers: int = 0,
  threads: int = 2,
  resize: float = 256 / 224,
  cell: int = views.CELL,
  grid_offset: int = views.CELL // 2,
) -> Batches:
  """Returns batches of central views, every example exactly once.

  Batches put together over the processes are the examples in the source's
  order. Every process makes the same number of batches of the same size; the
  places left over have mask 0, index -1 and zeros elsewhere.

  Args:
    source: If several, one after another.
    batch_size: Over all processes.
    image_size: Side S of the views; a multiple of 32.
    process_index: Of this process.
    process_count: Number of processes that evaluate together.
    workers: Worker processes; 0 works in threads of this process.
    threads: As in `training`.
    resize: Shorter side before the centre is cut, in units of `image_size`.
    cell: As in `training`.
    grid_offset: As in `training`.

  Raises:
    UserError: If a size does not fit; while iterating, if an example cannot
      be read.
  """
  source = _one(source)
  _check(source, image_size, cell, grid_offset)
  size = _share(batch_size, process_count)
  view = CentralView(
    source=source,
    image_size=image_size,
    resize=resize,
    cell=cell,
    grid_offset=grid_offset,
  )
  count = -(-len(source) // batch_size)
  places = np.full(count * batch_size, -1)
  places[: len(source)] = np.arange(len(source))
  places = places.reshape(count, process_count, size)[:, process_index].ravel()
  examples = grain.MapDataset.source(places.tolist()).map(view)
  return Batches(
    examples.batch(size),
    workers=workers,
    threads=threads,
    batch_bytes=size * _row_bytes(view),
  )


def example_id(file_name: str) -> int:
  """Returns the 32-bit id of an image, by which its random numbers are drawn.

  It depends on nothing but the name: not on split, list, order or machine.
  ImageNet's validation images have a number in their name, and no two share an
  id; others have the first bits of the name's SHA-256.
  """
  numbered = _VALIDATION.search(file_name)
  if numbered:
    return int(numbered[1])
  return int.from_bytes(hashlib.sha256(file_name.encode()).digest()[:4], 'big')


class Rows(grain.MapDataset):
  """The same rows of every global batch, one process's share of them.

  Args:
    examples: Those of all processes, in the order of the global batches.
    batch_size: Rows of a global batch.
    first: First row of the share.
    count: Number of rows of the share.
  """

  def __init__(
    self,
    examples: grain.MapDataset,
    batch_size: int,
    *,
    first: int,
    count: int,
  ):
    super().__init__(examples)
    self._examples, self._batch_size = examples, batch_size
    self._first, self._count = first, count

  def __len__(self) -> int:
    return len(self._examples) // self._batch_size * self._count

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return self.slice(index)
    batch, row = divmod(index, self._count)
    return self._examples[batch * self._batch_size + self._first + row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomView:
  """From an index in `source` and a generator to one training example."""

  source: Source
  image_size: int
  scale: tuple[float, float]
  ratio: tuple[float, float]
  flip: float
  cell: int
  grid_offset: int

  def __call__(self, index: int, rng: np.random.Generator) -> Batch:
    """Returns one row of a batch."""
    view = functools.partial(
      views.random_view,
      rng,
      scale=self.scale,
      ratio=self.ratio,
      flip=self.flip,
    )
    return _row(self, int(index), view)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CentralView:
  """From an index in `source`, or -1 for padding, to one evaluation example."""

  source: Source
  image_size: int
  resize: float
  cell: int
  grid_offset: int

  def __call__(self, index: int) -> Batch:
    """Returns one row of a batch, with its `mask`."""
    if index >= 0:
      view = functools.partial(views.central_view, resize=self.resize)
      return _row(self, int(index), view) | {'mask': np.ones((), np.float32)}
    return _blank(self) | {'mask': np.zeros((), np.float32)}


def _blank(transform: RandomView | CentralView) -> Batch:
  """Returns a row of zeros, of no example."""
  size = transform.image_size
  cells = size // transform.cell
  candidates = transform.source.labels.candidates
  return {
    'image': np.zeros((size, size, 3), np.uint8),
    'label': np.asarray(0, np.int32),
    'parts': np.zeros((cells, cells), np.int32),
    'candidates': np.zeros(candidates.shape[1:], np.int32),
    'source': np.asarray(0, np.int32),
    'index': np.asarray(-1, np.int32),
    'id': np.asarray(0, np.uint32),
  }


def _row_bytes(transform: RandomView | CentralView) -> int:
  return sum(array.nbytes for array in _blank(transform).values())


def _row(
  transform: RandomView | CentralView, index: int, view_of: Any
) -> Batch:
  """Returns the example at `index` under the view `view_of(size, side)`."""
  example = transform.source[index]
  image = views.decode(example['image'], example['file_name'])
  view = view_of(image.size, transform.image_size)
  return {
    'image': views.pixels(image, view),
    'label': np.asarray(example['label'], np.int32),
    'parts': _parts(transform, example, image.size, view),
    'candidates': transform.source.labels.candidates[example['label']],
    'source': np.asarray(SOURCE_CODES[example['source']], np.int32),
    'index': np.asarray(index, np.int32),
    'id': np.asarray(example_id(example['file_name']), np.uint32),
  }


def _parts(
  transform: RandomView | CentralView,
  example: Example,
  size: tuple[int, int],
  view: views.View,
) -> np.ndarray:
  """Returns the global part ids of a view, int32 (S/c, S/c)."""
  if example['part_mask'] is None:
    cells = view.size // transform.cell
    return np.zeros((cells, cells), np.int32)
  name, label = example['file_name'], example['label']
  mask = views.decode_mask(example['part_mask'], name)
  if mask.shape != size[::-1]:
    raise UserError(
      f'The part mask of {name} is {mask.shape[1]} x {mask.shape[0]} pixels,'
      f' its image {size[0]} x {size[1]}. Build the data set again.'
    )
  local = views.grid(mask, view, transform.cell, transform.grid_offset)
  local = local.astype(np.int32)
  labels = transform.source.labels
  if local.max() > labels.part_counts[label]:
    raise UserError(
      f'The part mask of {name} holds part {local.max()}, but its class'
      f' {example["wnid"]} has {labels.part_counts[label]} parts.'
    )
  return np.where(local > 0, local + labels.first[label] - 1, 0)


def _one(source: Sources) -> Source:
  if isinstance(source, (list, tuple)):
    return Concatenated(source)
  return source


def _share(batch_size: int, process_count: int) -> int:
  if batch_size < 1 or batch_size % process_count:
    raise UserError(
      f'batch_size={batch_size} does not divide over {process_count} processes.'
    )
  return batch_size // process_count


def _check(
  source: Source,
  image_size: int,
  cell: int,
  grid_offset: int,
) -> None:
  views.check_size(image_size, cell)
  if not 0 <= grid_offset < cell:
    raise UserError(
      f'grid_offset={grid_offset} is not inside a cell of {cell} pixels.'
    )
  if not len(source):
    raise UserError('A source of 0 examples makes no batches.')
