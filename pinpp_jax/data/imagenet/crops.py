"""Images cut once by a named convention, and kept as pixels.

A published accuracy belongs to pixels, and pixels to the filter that resized
them: between bilinear and bicubic lie points of accuracy. So the convention has
a name, Pillow does the work (as it did for the published numbers), and what
comes out is kept in one file that every later run reads.
"""

from collections.abc import Mapping, Sequence
from concurrent import futures
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
from typing import Any

from absl import logging
import numpy as np
import PIL
from PIL import Image, ImageOps, features

from pinpp_jax.data import views
from pinpp_jax.data.imagenet.layouts import ImageNetCopy, open_copy
from pinpp_jax.data.labels import write_json
from pinpp_jax.errors import UserError

_FORMAT = 1
_LINES = 10  # of progress, over a whole list
_FILTERS = {
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
}
_NAME = re.compile(r'res(\d+)(?:crop(\d+))?-(bilinear|bicubic)|crop(\d+)')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
  """From a picture to a square of pixels, with torchvision's rounding.

  Attributes:
    resize: Length of the shorter side, or of both where nothing is cropped; 0
      leaves the size as it is.
    crop: Side of the square cut from the centre, 0 for none. Pictures smaller
      than that are padded with black.
    filter: Of the resize, antialiased: 'bilinear' or 'bicubic'.

  Raises:
    UserError: If there is no such square.
  """

  resize: int = 0
  crop: int = 0
  filter: str = 'bilinear'

  def __post_init__(self):
    if self.filter not in _FILTERS:
      raise UserError(f'filter={self.filter!r} is not one of {list(_FILTERS)}.')
    if self.side < 1 or 0 < self.resize < self.crop:
      raise UserError(
        f'A preprocessing resizes to at least the side of its crop: resize='
        f'{self.resize}, crop={self.crop}.'
      )

  @property
  def side(self) -> int:
    """The side of the square, in pixels."""
    return self.crop or self.resize

  def __call__(self, image: Image.Image) -> np.ndarray:
    """Returns the pixels of an RGB picture, uint8 (side, side, 3)."""
    if not self.resize:
      image = _padded(image, self.crop)
    size = self._resized(*image.size)
    view = views.View(
      box=(0, 0, *image.size),
      resized=size,
      # Python's rounding of halves to even, as CenterCrop has it.
      corner=(
        round((size[0] - self.side) / 2),
        round((size[1] - self.side) / 2),
      ),
      size=self.side,
      flip=False,
    )
    return views.pixels(image, view, _FILTERS[self.filter])

  def _resized(self, width: int, height: int) -> tuple[int, int]:
    if not self.resize:
      return width, height
    if not self.crop:
      return self.resize, self.resize
    longer = int(self.resize * max(width, height) / min(width, height))
    return (self.resize, longer) if width <= height else (longer, self.resize)


# RobustBench's: Res256Crop224, BicubicRes256Crop224, Res224 and Crop288.
NAMED = {
  'res256crop224-bilinear': Preprocessing(resize=256, crop=224),
  'res256crop224-bicubic': Preprocessing(
    resize=256, crop=224, filter='bicubic'
  ),
  'res224': Preprocessing(resize=224),
  'crop288': Preprocessing(crop=288),
}


def parse(name: str) -> Preprocessing:
  """Returns the preprocessing of a name.

  Besides those of `NAMED` there are 'res<R>crop<C>-<filter>', 'res<R>-<filter>'
  (both sides) and 'crop<C>', for other sizes.

  Raises:
    UserError: If it is no such name.
  """
  if name in NAMED:
    return NAMED[name]
  found = _NAME.fullmatch(name)
  if not found:
    raise UserError(
      f'preprocessing={name!r} is not one of {list(NAMED)}, nor of the form'
      ' res110crop96-bicubic, res96-bilinear or crop96.'
    )
  resize, crop, kind, alone = found.groups()
  return Preprocessing(
    resize=int(resize or 0),
    crop=int(crop or alone or 0),
    filter=kind or 'bilinear',
  )


def _padded(image: Image.Image, side: int) -> Image.Image:
  """Returns a picture with black borders where a side is too short."""
  width, height = (max(0, side - length) for length in image.size)
  if not width and not height:
    return image
  # The odd pixel goes right and below, as CenterCrop has it.
  border = (width // 2, height // 2, (width + 1) // 2, (height + 1) // 2)
  return ImageOps.expand(image, border)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crops:
  """The squares of a list's images, in its order.

  Attributes:
    path: The .npy file, uint8 (N, side, side, 3).
    about: What lies beside it as JSON: list, preprocessing, versions of the
      decoders, and the SHA-256 of all pixels.
  """

  path: pathlib.Path
  about: Mapping[str, Any]

  def __len__(self) -> int:
    return self.about['images']

  def __getitem__(self, index: int) -> np.ndarray:
    return self._array[index]

  @functools.cached_property
  def _array(self) -> np.ndarray:
    return np.load(self.path, mmap_mode='r', allow_pickle=False)

  def __reduce__(self):
    # Without the array: worker processes open the file, not a copy of it.
    return functools.partial(Crops, path=self.path, about=self.about), ()


def of_list(
  folder: pathlib.Path,
  *,
  name: str,
  list_hash: str,
  names: Sequence[str],
  preprocessing: str,
  copy: pathlib.Path | None,
  threads: int = 2,
) -> Crops:
  """Returns the crops of a list, made now if they are not there.

  Runs that need the same crops at the same time wait for the one that makes
  them. The file appears whole or not at all.

  Args:
    folder: Where the files are kept.
    name: Of the list.
    list_hash: Of the list; the hash of the crops' order is another one.
    names: Its images, '<wnid>/<file>'.
    preprocessing: A name, see `parse`.
    copy: ImageNet's, whose validation images they are. None: the crops must
      be there, from whichever copy.
    threads: That read, decode and cut.

  Raises:
    UserError: If an image is absent or cannot be read; if crops are to be
      made and there is no copy.
  """
  convention = parse(preprocessing)
  path = folder / f'{name}-{preprocessing}-{_order(names)[:12]}.npy'
  wanted = {
    'format': _FORMAT,
    'list': name,
    'list_hash': list_hash,
    'order_hash': _order(names),
    'images': len(names),
    'preprocessing': preprocessing,
    **dataclasses.asdict(convention),
    'side': convention.side,
  }
  if copy is not None:
    wanted['imagenet'] = str(copy.resolve())
  found, problem = _load(path, wanted)
  if found is not None:
    return found
  if copy is None:
    raise UserError(
      f'{path} {problem}, and without an ImageNet copy it cannot be made;'
      ' set data.imagenet.'
    )
  with _held(path, len(names) * convention.side**2 * 3):
    # Another run may have made it meanwhile.
    found, problem = _load(path, wanted)
    if found is not None:
      return found
    logging.info('%s %s; cutting %d images.', path, problem, len(names))
    digest = _make(path, open_copy(copy), names, convention, threads)
    about = wanted | _decoders() | {'sha256': digest}
    write_json(path.with_suffix('.json'), about)
  return Crops(path=path, about=about)


@contextlib.contextmanager
def _held(path: pathlib.Path, size: int):
  """Holds a place for one file of crops against other runs.

  Raises:
    UserError: If nothing can be written there, or not so many bytes.
  """
  place = path.with_suffix('.lock')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
  except OSError as error:
    raise UserError(
      f'Crops cannot be written to {path.parent} ({error.strerror}); set'
      ' data.data_dir to a folder where they can.'
    ) from error
  with open(place) as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Writing to a mapped file on a full disk would kill the process.
    free = shutil.disk_usage(path.parent).free
    if size > free:
      raise UserError(
        f'The crops need {size / 1e9:.1f} GB, and {path.parent} has'
        f' {free / 1e9:.1f} GB left.'
      )
    yield


def _load(
  path: pathlib.Path, wanted: Mapping[str, Any]
) -> tuple[Crops | None, str]:
  """Returns the crops if they are what is wanted, else what is wrong."""
  try:
    about = json.loads(path.with_suffix('.json').read_text())
    array = np.load(path, mmap_mode='r', allow_pickle=False)
  except FileNotFoundError:
    return None, 'is not there yet'
  except (OSError, ValueError) as error:
    return None, f'cannot be read ({error})'
  for name, value in wanted.items():
    if about.get(name) != value:
      return None, f'was made with {name}={about.get(name)!r}, not {value!r}'
  shape = (wanted['images'], wanted['side'], wanted['side'], 3)
  if array.shape != shape or array.dtype != np.uint8:
    return None, f'holds {array.dtype} {array.shape}, not uint8 {shape}'
  stat = path.stat()
  if _digest(path, stat.st_size, stat.st_mtime_ns) != about.get('sha256'):
    return None, 'does not hold the pixels that were written'
  return Crops(path=path, about=about), ''


@functools.lru_cache
def _digest(path: pathlib.Path, size: int, changed: int) -> str:
  """Returns the SHA-256 of the pixels; once for each state of a file."""
  del size, changed
  array = np.load(path, mmap_mode='r', allow_pickle=False)
  return _hash(array)


def _hash(array: np.ndarray) -> str:
  digest = hashlib.sha256()
  for image in array:
    digest.update(image.tobytes())
  return digest.hexdigest()


def _make(
  path: pathlib.Path,
  copy: ImageNetCopy,
  names: Sequence[str],
  convention: Preprocessing,
  threads: int,
) -> str:
  """Writes the crops; returns the SHA-256 of their pixels."""
  check_copy(copy, names)
  partial = path.with_suffix('.partial')
  shape = (len(names), convention.side, convention.side, 3)

  try:
    array = np.lib.format.open_memmap(partial, 'w+', np.uint8, shape)

    def cut(index: int) -> None:
      data = copy.read(names[index], 'validation')
      array[index] = convention(views.decode(data, names[index]))

    with _pool(threads) as pool:
      each = math.ceil(len(names) / _LINES)
      for i, _ in enumerate(pool.map(cut, range(len(names))), 1):
        if i % each == 0:
          logging.info('%d of %d images are cut.', i, len(names))
    array.flush()
    digest = _hash(array)
    with open(partial, 'rb+') as file:
      os.fsync(file.fileno())
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)
  return digest


@contextlib.contextmanager
def _pool(threads: int):
  """Threads whose waiting work is dropped at the first error."""
  pool = futures.ThreadPoolExecutor(max(1, threads))
  try:
    yield pool
  finally:
    pool.shutdown(cancel_futures=True)


def check_copy(copy: ImageNetCopy, names: Sequence[str]) -> None:
  """Raises UserError unless all names are validation images of a copy."""
  wnids = sorted({copy.wnid(name) for name in names})
  there = set(copy.file_names('validation', wnids))
  absent = [name for name in names if name not in there]
  if absent:
    raise UserError(
      f'{len(absent)} of the {len(names)} images of the list are not among the'
      f' validation images of {copy.path}, or of another class there:'
      f' {", ".join(absent[:5])}{", ..." * (len(absent) > 5)}.'
    )


def _order(names: Sequence[str]) -> str:
  return hashlib.sha256('\n'.join(names).encode()).hexdigest()


def _decoders() -> dict[str, Any]:
  """Returns what the pixels may depend on besides."""
  turbo = features.check_feature('libjpeg_turbo')
  return {
    'pillow': PIL.__version__,
    'jpeg': features.version('libjpeg_turbo' if turbo else 'jpg') or '',
  }
