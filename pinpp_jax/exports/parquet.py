"""Parquet files as Hugging Face's `datasets` reads them; images by name only.

A row holds the painted mask as a PNG of local indices and the regions as they
were drawn. The features are written into the files, so that `datasets` decodes
masks and names classes without further words.
"""

from collections.abc import Mapping
import itertools
import json
import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pinpp_jax.data import files, masks
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read.annotated import AnnotatedImage, Images
from pinpp_jax.data.release.records import Annotation
from pinpp_jax.exports import outlines

_SHARD = 20_000  # Rows of a file.
_GROUP = 200  # Rows that are in memory at a time.

_REGION = {
  'part': pa.int32(),
  'part_id': pa.int32(),
  'polygons': pa.list_(pa.list_(pa.float64())),
  'rle': pa.string(),
  'bbox': pa.list_(pa.float32()),
  'area': pa.int32(),
}
_ROW = {
  'file_name': pa.string(),
  'wnid': pa.string(),
  'object': pa.string(),
  'label': pa.int64(),
  'source': pa.string(),
  'width': pa.int32(),
  'height': pa.int32(),
  'part_mask': pa.struct({'bytes': pa.binary(), 'path': pa.string()}),
  'regions': pa.list_(pa.struct(_REGION)),
}


def write(
  images: Mapping[str, Images], labels: LabelTable, folder: pathlib.Path
) -> None:
  """Writes data/<split>-<shard>-of-<shards>.parquet and README.md.

  Args:
    images: those of each split.
    labels: the table they are numbered by.
    folder: where to.
  """
  (folder / 'data').mkdir()
  info = {'info': {'features': _features(labels)}}
  schema = pa.schema(_ROW, metadata={'huggingface': json.dumps(info)})
  for split, some in images.items():
    shards = max(1, -(-len(some) // _SHARD))
    rows = (_row(image, labels) for image in some)
    for shard in range(shards):
      end = len(some) * (shard + 1) // shards
      left = end - len(some) * shard // shards
      name = f'{split}-{shard:05d}-of-{shards:05d}.parquet'
      with pq.ParquetWriter(folder / 'data' / name, schema) as writer:
        while group := list(itertools.islice(rows, min(left, _GROUP))):
          left -= len(group)
          writer.write_table(pa.Table.from_pylist(group, schema))
  files.write(folder / 'README.md', _card(images))


def _row(image: AnnotatedImage, labels: LabelTable) -> dict[str, Any]:
  height, width = image.mask.shape
  return {
    'file_name': image.file_name,
    'wnid': image.wnid,
    'object': labels.object_names[image.label],
    'label': image.label,
    'source': image.source,
    'width': width,
    'height': height,
    'part_mask': {'bytes': masks.encode(image.mask), 'path': None},
    'regions': [
      _region(region, int(labels.first[image.label]), height, width)
      for region in image.regions
    ],
  }


def _region(
  region: Annotation, first: int, height: int, width: int
) -> dict[str, Any]:
  outline = outlines.segmentation(region)
  runs = outlines.runs(region, height, width)
  drawn = isinstance(outline, list)
  return {
    'part': region.part,
    'part_id': first + region.part - 1,
    'polygons': outline if drawn else [],
    'rle': None if drawn else outline['counts'],
    'bbox': outlines.box(runs),
    'area': outlines.area(runs),
  }


def _features(labels: LabelTable) -> dict[str, Any]:
  """Returns the columns in the words of `datasets`."""
  result: dict[str, Any] = {name: _feature(kind) for name, kind in _ROW.items()}
  result['label'] = {'names': list(labels.wnids), '_type': 'ClassLabel'}
  result['part_mask'] = {'_type': 'Image'}
  return result


def _feature(kind: pa.DataType) -> dict[str, Any]:
  if pa.types.is_list(kind):
    return {'feature': _feature(kind.value_type), '_type': 'List'}
  if pa.types.is_struct(kind):
    return {field.name: _feature(field.type) for field in kind}
  # Only these two are called differently.
  names = {'float': 'float32', 'double': 'float64'}
  return {'dtype': names.get(str(kind), str(kind)), '_type': 'Value'}


def _card(images: Mapping[str, Images]) -> str:
  paths = ''.join(
    f'  - split: {split}\n    path: data/{split}-*.parquet\n'
    for split in images
  )
  return f"""\
---
configs:
- config_name: default
  data_files:
{paths}---

Part annotations of ImageNet images, written by pinpp_jax. The images are not
included: `file_name` is their name below the training images of your own copy
of ImageNet-1K. `part_mask` is an 8-bit image of the same size; its values are 0
for background and the class's own part, `regions[i]['part']`, which
`labels.json` names. `regions` holds what was drawn, of which `part_mask` is
painted: a contained part lies over its container, then the smaller on top.
"""
