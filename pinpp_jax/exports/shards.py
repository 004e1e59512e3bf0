"""WebDataset: tar files of images, each with its mask and annotations.

<split>-<number>.tar holds <stem>.jpg, the image's own bytes; <stem>.mask.png,
the painted mask with local indices in 8 bits; and <stem>.json, of which `parts`
names every index and `regions` holds what was drawn.
"""

from collections.abc import Iterator, Mapping
import io
import json
import pathlib
import tarfile
from typing import Any

from pinpp_jax.data import masks
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read.annotated import AnnotatedImage, Images
from pinpp_jax.errors import UserError
from pinpp_jax.exports import outlines


def write(
  images: Mapping[str, Images],
  labels: LabelTable,
  folder: pathlib.Path,
  *,
  shard_mb: int = 500,
) -> None:
  """Writes the shards of every split.

  Args:
    images: those of each split.
    labels: the table they are numbered by.
    folder: where to.
    shard_mb: at most so large a shard is, in 10^6 bytes, but for its last
      image.

  Raises:
    UserError: the size is not positive.
  """
  if shard_mb < 1:
    raise UserError(f'shard_mb={shard_mb} must be at least 1.')
  for split, some in images.items():
    waiting = iter(some)
    number, image = 0, next(waiting, None)
    while image is not None:
      path = folder / f'{split}-{number:06d}.tar'
      with tarfile.open(path, 'w', format=tarfile.USTAR_FORMAT) as tar:
        while image is not None and tar.offset < shard_mb * 10**6:
          for name, content in _files(image, labels):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
          image = next(waiting, None)
      number += 1


def _files(
  image: AnnotatedImage, labels: LabelTable
) -> Iterator[tuple[str, bytes]]:
  """Yields the name and content of an image's files."""
  stem = pathlib.PurePosixPath(image.file_name).stem
  yield f'{stem}.jpg', image.image
  yield f'{stem}.mask.png', masks.encode(image.mask)
  yield f'{stem}.json', json.dumps(_facts(image, labels)).encode()


def _facts(image: AnnotatedImage, labels: LabelTable) -> dict[str, Any]:
  parts = labels.of_class(image.wnid)
  return {
    'file_name': image.file_name,
    'wnid': image.wnid,
    'label': image.label,
    'source': image.source,
    'parts': {part.local_index: part.name for part in parts},
    'part_ids': {part.local_index: part.global_id for part in parts},
    'regions': [
      {'part': r.part, 'segmentation': outlines.segmentation(r)}
      for r in image.regions
    ],
  }
