"""From images to labels, a block of images at a time."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
import dataclasses
import io
import itertools
from typing import Any, TypeVar

from absl import logging
import numpy as np
from PIL import Image

from pinpp_jax.data import masks
from pinpp_jax.data import views as views_lib
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read.sources import Example, Source
from pinpp_jax.errors import UserError
from pinpp_jax.labelling import confidence as confidence_lib
from pinpp_jax.labelling import frames
from pinpp_jax.labelling.frames import Frame
from pinpp_jax.labelling.predict import Predictor

# Reasons in the manifest why an image has no label.
EMPTY = 'the file is empty'
UNREADABLE = 'the file is not a readable image'

_A = TypeVar('_A')
_B = TypeVar('_B')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How images are labelled; everything here changes what is stored.

  Attributes:
    image_size: Shorter side of the network's input, in pixels.
    scales: Multiples of that side; the probabilities of all are averaged at the
      image's own size.
    flip: Whether mirrored images are predicted and averaged too.
    batch_size: Images per device and call.
    multiple: Padded sides are multiples of this, itself a multiple of 32.
    max_aspect: Largest ratio of the sides (`frames.fit`).
    min_confidence: See `confidence.decide`.
    min_area: See `confidence.decide`.
    skip_bad: Whether unreadable images are skipped with a warning; otherwise
      they are errors.
    images: Whether the set stores the images, or part masks alone that are
      joined to the ImageNet copy by name.

  Raises:
    UserError: If a value is out of range.
  """

  image_size: int
  scales: tuple[float, ...] = (1.0,)
  flip: bool = False
  batch_size: int = 16
  multiple: int = 64
  max_aspect: float = 3.0
  min_confidence: float = 0.0
  min_area: float = 0.0
  skip_bad: bool = False
  images: bool = True

  def __post_init__(self):
    for fine, message in (
      (self.image_size >= 1, f'image_size={self.image_size} is below 1'),
      (
        self.scales and min(self.scales) > 0,
        f'scales={self.scales} must be one or more positive numbers',
      ),
      (
        self.multiple >= 32 and self.multiple % 32 == 0,
        f'multiple={self.multiple} is not a multiple of 32',
      ),
      (self.max_aspect >= 1, f'max_aspect={self.max_aspect} is below 1'),
      (
        0 <= self.min_confidence <= 1,
        f'min_confidence={self.min_confidence} is not between 0 and 1',
      ),
      (
        0 <= self.min_area <= 1,
        f'min_area={self.min_area} is not between 0 and 1',
      ),
    ):
      if not fine:
        raise UserError(f'{message}.')

  def frames(self, size: tuple[int, int]) -> tuple[Frame, ...]:
    """Returns all frames of an image of `size` (width, height)."""
    return frames.frames(
      size,
      image_size=self.image_size,
      scales=self.scales,
      flip=self.flip,
      multiple=self.multiple,
      max_aspect=self.max_aspect,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelled:
  """An image and its label, or the reason why it has none.

  Attributes:
    example: The image as its source gave it.
    part_mask: The mask of `confidence.Label` as a PNG; None without a label.
    confidence: See `confidence.Label`.
    part_confidence: See `confidence.Label`.
    reason: Why there is no label; '' if there is one.
  """

  example: Example
  part_mask: bytes | None = None
  confidence: float = 0.0
  part_confidence: np.ndarray | None = None
  reason: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Seen:
  """An image ready for the network: uint8 (H, W, 3) for each frame."""

  place: int
  frames: tuple[Frame, ...]
  pixels: tuple[np.ndarray, ...]


class Labeller:
  """Labels blocks of images whose class is known and has parts.

  Args:
    predictor: Of the segmenter.
    table: The label table.
    options: How to label.
    threads: Threads that read, decode and write images. They affect only the
      speed.
  """

  def __init__(
    self,
    predictor: Predictor,
    table: LabelTable,
    options: Options,
    *,
    threads: int = 2,
  ):
    self._predictor, self._table = predictor, table
    self._options = options
    self._pool = futures.ThreadPoolExecutor(max(1, threads))
    self._ahead = 2 * max(1, threads)

  def __call__(self, source: Source) -> list[Labelled]:
    """Returns the labels of all images of a source, in its order.

    All encoded images are held in memory. A batch has images of the same padded
    shape; the last batch of a shape is filled up with repeats. So labels depend
    only on the source.

    Raises:
      UserError: If an image cannot be read and `skip_bad` is off.
    """
    examples = list(self._each(source.__getitem__, range(len(source))))
    found: dict[int, Labelled] = {}
    shapes: dict[Any, list[int]] = collections.defaultdict(list)
    for place, example in enumerate(examples):
      size = self._size(example)
      if isinstance(size, Labelled):
        found[place] = size
      else:
        views = self._options.frames(size)
        shapes[tuple(view.padded for view in views)].append(place)
    for _, places in sorted(shapes.items()):
      found |= self._bucket(examples, places)
    return [found[place] for place in range(len(examples))]

  @property
  def compilations(self) -> int:
    """Number of image shapes that were compiled."""
    return self._predictor.compilations

  def _bucket(
    self, examples: Sequence[Example], places: Sequence[int]
  ) -> dict[int, Labelled]:
    """Returns the labels of images of one shape, or reasons for none."""
    found: dict[int, Labelled] = {}

    def readable() -> Iterator[_Seen]:
      see = lambda place: self._see(place, examples[place])
      for place, seen in zip(places, self._each(see, places), strict=True):
        if isinstance(seen, Labelled):
          found[place] = seen
        else:
          yield seen

    waiting = None
    for batch in _batches(readable(), self._predictor.images):
      started = self._start(examples, batch)
      # The devices work on this batch while the previous one is finished here.
      if waiting:
        found |= self._finish(examples, *waiting)
      waiting = batch, started
    return found | (self._finish(examples, *waiting) if waiting else {})

  def _size(self, example: Example) -> tuple[int, int] | Labelled:
    """Returns (width, height) from the file's header, or the reason."""
    if not example['image']:
      return self._bad(example, EMPTY)
    try:
      with Image.open(io.BytesIO(example['image'])) as image:
        return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
      return self._bad(example, UNREADABLE)

  def _see(self, place: int, example: Example) -> _Seen | Labelled:
    """Returns the network's inputs for an image, or the reason for none."""
    try:
      image = views_lib.decode(example['image'], example['file_name'])
    except UserError:
      return self._bad(example, UNREADABLE)
    views = self._options.frames(image.size)
    pixels = tuple(frames.pixels(image, view) for view in views)
    return _Seen(place=place, frames=views, pixels=pixels)

  def _bad(self, example: Example, reason: str) -> Labelled:
    """Returns the image without a label, or raises the reason."""
    name, size = example['file_name'], len(example['image'])
    if not self._options.skip_bad:
      raise UserError(
        f'{name}: {reason} ({size:,} bytes). Download it again, or skip such'
        ' images with --config.labelling.skip_bad=True.'
      )
    logging.warning('Skipped %s: %s (%d bytes).', name, reason, size)
    return Labelled(example=example, reason=reason)

  def _start(
    self, examples: Sequence[Example], batch: Sequence[_Seen]
  ) -> list[Any]:
    """Starts the prediction of all frames; returns the arrays, not awaited."""
    ids = self._table.candidates[[examples[s.place]['label'] for s in batch]]
    return [
      self._predictor(np.stack([seen.pixels[view] for seen in batch]), ids)
      for view in range(len(batch[0].frames))
    ]

  def _finish(
    self,
    examples: Sequence[Example],
    batch: Sequence[_Seen],
    started: Sequence[Any],
  ) -> dict[int, Labelled]:
    """Waits for the predictions of a batch and returns the labels."""
    cells = [np.asarray(one) for one in started]

    def one(row: int) -> Labelled:
      seen = batch[row]
      example = examples[seen.place]
      parts = self._table.part_counts[example['label']]
      label = confidence_lib.decide(
        mean([array[row, ..., : 1 + parts] for array in cells], seen.frames),
        min_confidence=self._options.min_confidence,
        min_area=self._options.min_area,
      )
      return Labelled(
        example=example,
        part_mask=masks.encode(label.mask),
        confidence=label.confidence,
        part_confidence=label.part_confidence,
      )

    labels = self._each(one, range(len(batch)))
    return {s.place: label for s, label in zip(batch, labels, strict=True)}

  def _each(
    self, function: Callable[[_A], _B], items: Iterable[_A]
  ) -> Iterator[_B]:
    """Yields function(item) in order, computed in threads, a few ahead."""
    waiting: collections.deque[futures.Future[_B]] = collections.deque()
    for item in items:
      waiting.append(self._pool.submit(function, item))
      if len(waiting) > self._ahead:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()


def mean(cells: Sequence[np.ndarray], views: Sequence[Frame]) -> np.ndarray:
  """Returns the mean of several frames' outputs at the image's own pixels.

  Args:
    cells: float32 (h, w, c) of each frame.
    views: The frames.

  Returns:
    float32 (c, height, width).
  """
  total = frames.sample(cells[0], views[0])
  for more, view in zip(cells[1:], views[1:], strict=True):
    total += frames.sample(more, view)
  total /= np.float32(len(cells))
  return total


def _batches(items: Iterable[_A], size: int) -> Iterator[list[_A]]:
  iterator = iter(items)
  while batch := list(itertools.islice(iterator, size)):
    yield batch
