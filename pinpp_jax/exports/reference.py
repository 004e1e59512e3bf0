"""The layout of folders that the reference's training code reads.

<split>/img/<wnid>/*.JPEG, <split>/seg/<wnid>/<stem>.png with global part ids in
16 bits, and <split>/whether_pseudo/<wnid>.txt with a line `<wnid>/<name> 0|1`
for every image. What is painted travels, not what was drawn.
"""

import collections
from collections.abc import Mapping
import io
import pathlib

import numpy as np
from PIL import Image

from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read.annotated import Images
from pinpp_jax.errors import UserError

# The names of the reference for our splits.
SPLITS = {'train': 'train', 'validation': 'val_1w', 'test': 'test'}


def write(
  images: Mapping[str, Images],
  labels: LabelTable,
  folder: pathlib.Path,
  *,
  masks_only: bool = False,
) -> None:
  """Writes a folder per split.

  Args:
    images: those of each split.
    labels: the table they are numbered by.
    folder: where to.
    masks_only: leaves the images themselves out.

  Raises:
    UserError: there are more parts than 16 bits can number.
  """
  if labels.num_parts > np.iinfo(np.uint16).max:
    raise UserError(f'{labels.num_parts} parts do not fit 16-bit masks.')
  for split, some in images.items():
    inside = folder / SPLITS.get(split, split)
    lists: dict[str, list[str]] = collections.defaultdict(list)
    for one in some:
      path = pathlib.PurePosixPath(one.file_name)
      mask = inside / 'seg' / one.wnid / f'{path.stem}.png'
      _put(mask, encode(one.mask, int(labels.first[one.label])))
      if not masks_only:
        _put(inside / 'img' / one.wnid / path.name, one.image)
      pseudo = int(one.source == 'pseudo')
      lists[one.wnid].append(f'{one.wnid}/{path.name} {pseudo}\n')
    for wnid, lines in lists.items():
      text = ''.join(sorted(lines))
      _put(inside / 'whether_pseudo' / f'{wnid}.txt', text.encode())


def encode(mask: np.ndarray, first: int) -> bytes:
  """Returns a mask of local indices as a 16-bit PNG of global ids.

  Args:
    mask: uint8 (height, width).
    first: the global id of the class's first part.
  """
  ids = mask.astype(np.uint16)
  ids[mask > 0] += np.uint16(first - 1)
  stream = io.BytesIO()
  Image.fromarray(ids).save(stream, format='PNG')
  return stream.getvalue()


def _put(path: pathlib.Path, content: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
