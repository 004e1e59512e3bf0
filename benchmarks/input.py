"""Images per second of one core, from stored bytes to the rows of a batch.

  python -m benchmarks.input --data_dir=DIR --dataset=pinpp
  python -m benchmarks.input --quick

The reference-like path is that of PyTorch training: decode, crop, resize,
mirror, float32 CHW, subtract the mean and divide; the part mask is a 16-bit
image resized with NEAREST. Ours gives uint8 and the label grid
(`data/batches/pipeline.py`); its pixels are checked to be the same. The other
rows are ours with one change, with the mean change of the pixels in grey
levels. Time is CPU time of the thread, so that other work on the machine
matters little.
"""

import argparse
from collections.abc import Callable
import contextlib
import dataclasses
import importlib
import io
import statistics
import tempfile
import time
from typing import Any

import numpy as np
from PIL import Image

from pinpp_jax.data import views
from pinpp_jax.data.batches import pipeline
from pinpp_jax.data.build import run
from pinpp_jax.data.read import sources

# Not a dependency: its row is shown if it is installed.
simplejpeg: Any = None
with contextlib.suppress(ImportError):
  simplejpeg = importlib.import_module('simplejpeg')

MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]
STD = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
BICUBIC, NEAREST = Image.Resampling.BICUBIC, Image.Resampling.NEAREST


@dataclasses.dataclass(frozen=True)
class Held:
  """Examples in memory, so that disks are not measured."""

  labels: Any
  examples: list[sources.Example]

  def __len__(self) -> int:
    return len(self.examples)

  def __getitem__(self, index: int) -> sources.Example:
    return self.examples[index]

  def file_name(self, index: int) -> str:
    """Returns the file name of the example at `index`."""
    return self.examples[index]['file_name']


def decode(data: bytes) -> Image.Image:
  """Returns a picture as Pillow decodes it."""
  return Image.open(io.BytesIO(data)).convert('RGB')


def rectangle(view: views.View) -> tuple[int, int, int, int]:
  """Returns (left, top, right, bottom) of a view's crop."""
  left, top, width, height = view.box
  return left, top, left + width, top + height


def mirrored(image: Image.Image, view: views.View) -> np.ndarray:
  """Returns the pixels of a picture, mirrored if its view is."""
  if view.flip:
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  return np.asarray(image)


def as_floats(pixels: np.ndarray) -> np.ndarray:
  """Returns float32 (3, S, S) around zero."""
  array = np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32)
  array /= 255
  array -= MEAN
  array /= STD
  return array


def cut(data: bytes, view: views.View) -> np.ndarray:
  """Returns a view's pixels: cropped, then resized."""
  image = decode(data).crop(rectangle(view)).resize(view.resized, BICUBIC)
  return mirrored(image, view)


def resized_box(data: bytes, view: views.View) -> np.ndarray:
  """Resizes the rectangle without cropping it first."""
  image = decode(data).resize(view.resized, BICUBIC, box=rectangle(view))
  return mirrored(image, view)


def reducing_gap(data: bytes, view: views.View) -> np.ndarray:
  """Shrinks large rectangles by an integer factor first."""
  image = decode(data).crop(rectangle(view))
  return mirrored(image.resize(view.resized, BICUBIC, reducing_gap=2.0), view)


def draft(data: bytes, view: views.View) -> np.ndarray:
  """Lets the decoder reduce the image if the rectangle is large."""
  image = Image.open(io.BytesIO(data))
  width, height = image.size
  least = max(view.resized[0] / view.box[2], view.resized[1] / view.box[3])
  image.draft('RGB', (round(width * least), round(height * least)))
  image = image.convert('RGB')
  x, y = image.width / width, image.height / height
  left, top, right, bottom = rectangle(view)
  box = (left * x, top * y, right * x, bottom * y)
  return mirrored(image.resize(view.resized, BICUBIC, box=box), view)


def other_decoder(data: bytes, view: views.View) -> np.ndarray:
  """Decodes with simplejpeg, resizes with Pillow."""
  image = Image.fromarray(simplejpeg.decode_jpeg(data))
  return views.pixels(image, view)


class Paths:
  """All paths from the examples to a batch's rows, with the same views."""

  def __init__(self, source: Held, size: int):
    self._source = source
    self._row = pipeline.RandomView(
      source=source,
      image_size=size,
      scale=(0.08, 1.0),
      ratio=(3 / 4, 4 / 3),
      flip=0.5,
      cell=views.CELL,
      grid_offset=views.CELL // 2,
    )
    self.views = [
      views.random_view(self._rng(i), decode(e['image']).size, size)
      for i, e in enumerate(source.examples)
    ]
    self._wide = [self._sixteen_bits(e) for e in source.examples]

  def ours(self, index: int) -> np.ndarray:
    """Returns uint8 pixels; makes the label grid too."""
    return self._row(index, self._rng(index))['image']

  def reference(self, index: int) -> np.ndarray:
    """Returns float32 pixels; makes the mask of a view too."""
    view = self.views[index]
    array = as_floats(cut(self._source[index]['image'], view))
    if self._wide[index]:
      mask = Image.open(io.BytesIO(self._wide[index])).crop(rectangle(view))
      mirrored(mask.resize(view.resized, NEAREST), view).astype(np.int64)
    return array

  def floats(self, index: int) -> np.ndarray:
    """Returns ours as float32 CHW."""
    return as_floats(self.ours(index))

  def changed(self, pixels: Callable[[bytes, views.View], np.ndarray]):
    """Returns our path with other pixels."""

    def path(index: int) -> np.ndarray:
      example, view = self._source[index], self.views[index]
      self._labels(example, view)
      return np.ascontiguousarray(pixels(example['image'], view))

    return path

  def _labels(self, example: sources.Example, view: views.View) -> None:
    if example['part_mask'] is not None:
      mask = views.decode_mask(example['part_mask'], example['file_name'])
      views.grid(mask, view).astype(np.int32)

  def _rng(self, index: int) -> np.random.Generator:
    return np.random.default_rng(index)

  def _sixteen_bits(self, example: sources.Example) -> bytes:
    if example['part_mask'] is None:
      return b''
    mask = views.decode_mask(example['part_mask'], example['file_name'])
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint16)).save(file, 'PNG')
    return file.getvalue()


def rows(paths: Paths) -> dict[str, Callable[[int], np.ndarray]]:
  """Returns the paths by name."""
  found = {
    'reference-like': paths.reference,
    'ours': paths.ours,
    'float32 CHW on the host': paths.floats,
    'resize(box=) without a cut': paths.changed(resized_box),
    'reducing_gap=2': paths.changed(reducing_gap),
    'DCT-scaled decoding (draft)': paths.changed(draft),
  }
  if simplejpeg is not None:
    found['simplejpeg decodes'] = paths.changed(other_decoder)
  return found


def measure(
  contestants: dict[str, Callable[[int], np.ndarray]], count: int, rounds: int
) -> dict[str, list[float]]:
  """Returns seconds of work per image, of each round."""
  seconds: dict[str, list[float]] = {name: [] for name in contestants}
  for _ in range(rounds):
    for name, path in contestants.items():
      start = time.thread_time()
      for i in range(count):
        path(i)
      seconds[name].append((time.thread_time() - start) / count)
  return seconds


def difference(path: Callable[[int], np.ndarray], paths: Paths, count: int):
  """Returns the mean distance from our pixels, in grey levels."""
  total = 0.0
  for i in range(count):
    found = path(i)
    if found.dtype != np.uint8:
      found = np.rint((found * STD + MEAN) * 255).transpose(1, 2, 0)
    total += float(np.abs(found.astype(np.float32) - paths.ours(i)).mean())
  return total / count


def main() -> None:
  """Prints one table."""
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--data_dir', default='')
  parser.add_argument('--dataset', default='pinpp_mini')
  parser.add_argument('--images', type=int, default=200)
  parser.add_argument('--size', type=int, default=224)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--quick', action='store_true', help='a tiny run')
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    if options.quick:
      options.images, options.rounds, options.data_dir = 8, 1, folder
      run.build('pinpp_mini', folder)
    source = sources.Recorded(
      dataset=options.dataset, data_dir=options.data_dir, split='train'
    )
    count = min(options.images, len(source))
    examples = [source[i * len(source) // count] for i in range(count)]
  paths = Paths(Held(source.labels, examples), options.size)
  contestants = rows(paths)
  differences = {
    name: difference(path, paths, count) for name, path in contestants.items()
  }
  if differences['reference-like']:
    raise SystemExit(
      'The pixels of our path and of the reference-like path differ: not timed.'
    )
  seconds = measure(contestants, count, options.rounds)
  kilobytes = statistics.mean(len(e['image']) for e in examples) / 1e3
  print(f'{count} images, {kilobytes:.0f} kB on average, {options.size} px')
  for name, each in seconds.items():
    ratio = statistics.median(
      a / b for a, b in zip(seconds['reference-like'], each, strict=True)
    )
    print(
      f'{name:28} {1 / statistics.median(each):7.0f} images/s of a core'
      f'  {ratio:5.2f} x  {differences[name]:6.2f} grey levels'
    )


if __name__ == '__main__':
  main()
