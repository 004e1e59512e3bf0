"""A segmenter without weights, and what it should lead to, in plain numpy."""

import io

from flax import linen as nn
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import ndimage, special

from pinpp_jax.data.labels import LabelTable, Part

WNIDS = ('n00000001', 'n00000002', 'n00000003')
PARTS = (2, 4, 0)  # Parts of each class: the last has none.
FILL = (124, 116, 104)


def labels() -> LabelTable:
  parts = []
  for wnid, count in zip(WNIDS, PARTS, strict=True):
    for local in range(1, count + 1):
      parts.append(
        Part(
          global_id=len(parts) + 1,
          wnid=wnid,
          object_name=f'object {wnid}',
          name=f'{wnid} part {local}',
          generic_name=f'part {local}',
          local_index=local,
        )
      )
  return LabelTable(wnids=WNIDS, object_names=WNIDS, parts=tuple(parts))


class Colours(nn.Module):
  """Scores part i by the mean colour of 4 x 4 pixels, every i differently."""

  num_parts: int = 6
  num_classes: int = 3

  @nn.compact
  def __call__(self, image, *, train, parts=True, candidates=None):
    del train, parts
    b, h, w, _ = image.shape
    cells = image.reshape(b, h // 4, 4, w // 4, 4, 3).mean((2, 4)) - 0.5
    kernel = jnp.asarray(weights(self.num_parts))[candidates]
    return {'parts': [jnp.einsum('bhwc,bmc->bhwm', cells, kernel)]}


def weights(parts):
  rng = np.random.default_rng(7)
  return rng.normal(0, 9, (parts + 1, 3)).astype(np.float32)


def picture(seed, size):
  """Returns a JPEG of (width, height) with a few large blobs."""
  rng = np.random.default_rng(seed)
  small = rng.integers(0, 256, (4, 5, 3), np.uint8)
  image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
  buffer = io.BytesIO()
  image.save(buffer, 'JPEG')
  return buffer.getvalue()


class Pictures:
  """A source of pictures of given sizes; classes take turns, but the last."""

  def __init__(self, sizes, classes=2):
    self.labels = labels()
    self._sizes, self._classes = sizes, classes

  def __len__(self):
    return len(self._sizes)

  def file_name(self, index):
    wnid = WNIDS[index % self._classes]
    return f'{wnid}/{wnid}_{index}.JPEG'

  def __getitem__(self, index):
    label = index % self._classes
    size = self._sizes[index]
    return {
      'image': size if isinstance(size, bytes) else picture(index, size),
      'part_mask': None,
      'label': label,
      'file_name': self.file_name(index),
      'source': 'none',
      'wnid': WNIDS[label],
    }


def expected(data, label, *, side, scales=(1.0,), flip=False, max_aspect=3.0):
  """Returns (height, width, 1 + n) probabilities of one image."""
  image = Image.open(io.BytesIO(data)).convert('RGB')
  table = labels()
  ids = [0] + [p.global_id for p in table.of_class(WNIDS[label])]
  kernel = weights(table.num_parts)[ids].astype(np.float64)
  width, height = image.size
  total, views = 0, 0
  for scale in scales:
    short = round(side * scale)
    factor = min(short / min(image.size), max_aspect * short / max(image.size))
    w, h = (max(1, round(x * factor)) for x in image.size)
    resized = np.asarray(image.resize((w, h), Image.Resampling.BICUBIC))
    for mirrored in (False, True)[: 1 + flip]:
      shown = resized[:, ::-1] if mirrored else resized
      frame = np.empty((-(-h // 4) * 4, -(-w // 4) * 4, 3))
      frame[:] = FILL
      frame[:h, :w] = shown
      rows, columns = frame.shape[0] // 4, frame.shape[1] // 4
      cells = frame.reshape(rows, 4, columns, 4, 3).mean((1, 3)) / 255 - 0.5
      probabilities = special.softmax(cells @ kernel.T, axis=-1)
      y = (np.arange(height) + 0.5) * (h / 4 / height) - 0.5
      x = (np.arange(width) + 0.5) * (w / 4 / width) - 0.5
      x = x[::-1] if mirrored else x
      at = np.meshgrid(y, x, indexing='ij')
      total = total + np.stack(
        [
          ndimage.map_coordinates(p, at, order=1, mode='nearest')
          for p in np.moveaxis(probabilities, -1, 0)
        ],
        axis=-1,
      )
      views += 1
  return total / views
