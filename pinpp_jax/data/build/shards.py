"""The ArrayRecord files of a split."""

import dataclasses
import os
from typing import Any
import uuid

from array_record.python.array_record_module import ArrayRecordWriter
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer

from pinpp_jax.data import features
from pinpp_jax.data.build.prepare import Prepared

SHARD_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
  """One file to be written.

  Attributes:
    path: Of the file.
    prepared: The data set, cut to the images of the file.
    names: These images, in order.
  """

  path: str
  prepared: Prepared
  names: tuple[str, ...]


def plan(
  prepared: Prepared,
  names: tuple[str, ...],
  template: tfds.core.ShardedFileTemplate,
) -> list[Shard]:
  """Returns the shards of a split, all of about the same number of records."""
  size = prepared.num_bytes(names)
  count = min(max(1, -(-size // SHARD_BYTES)), len(names))
  shards = []
  for shard in range(count):
    start, end = (len(names) * (shard + i) // count for i in range(2))
    path = template.sharded_filepath(shard_index=shard, num_shards=count)
    own = names[start:end]
    shards.append(
      Shard(path=os.fspath(path), prepared=prepared.only(own), names=own)
    )
  return shards


def write(shard: Shard) -> int:
  """Writes a shard and returns the bytes of its records."""
  label = tfds.features.ClassLabel(names=list(shard.prepared.labels.wnids))
  record = tfds.features.FeaturesDict(features.of_record(label))
  specs: Any = record.get_serialized_info()
  serializer = example_serializer.ExampleSerializer(specs)
  # Two workers may be given the same shard, if one seems to be lost.
  partial = f'{shard.path}.{uuid.uuid4().hex}'
  # One record per group: any record can be read without its neighbours.
  writer = ArrayRecordWriter(partial, 'group_size:1')
  num_bytes = 0
  for example in shard.prepared.records(shard.names):
    proto = serializer.get_tf_example(record.encode_example(example))
    # A map's entries have any order unless they are asked to be sorted.
    data = proto.SerializeToString(deterministic=True)
    writer.write(data)
    num_bytes += len(data)
  writer.close()
  os.replace(partial, shard.path)
  return num_bytes
