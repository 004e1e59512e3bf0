"""Sources: sequences of encoded examples with random access.

A source has a length, gives an `Example` for an index, knows its label table
and each example's file name, and opens its files late, so that it can be sent
to worker processes. Nothing here decodes an image.
"""

import bisect
from collections.abc import Collection, Mapping, Sequence
import dataclasses
import functools
import itertools
import json
import os
import pathlib
from typing import Any, Protocol, TypedDict

import numpy as np
import tensorflow_datasets as tfds

from pinpp_jax.data import imagenet, splits
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.errors import UserError


class Example(TypedDict):
  """One image as it is stored.

  `source` says who drew the part mask: 'human', 'pseudo' or 'none' (there is
  no mask then). `file_name` is '<wnid>/<wnid>_<n>.JPEG'. The mask holds local
  part indices as an 8-bit PNG of the image's size.
  """

  image: bytes
  part_mask: bytes | None
  label: int
  file_name: str
  source: str
  wnid: str


class Source(Protocol):
  """What the pipeline reads from."""

  @property
  def labels(self) -> LabelTable:
    """The numbering of classes and parts."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...

  def file_name(self, index: int) -> str:
    """Returns the file name of the example at `index`."""
    ...


def data_folder(data_dir: str = '') -> pathlib.Path:
  """Returns the folder of built data sets.

  That is `data_dir`, or if empty TFDS_DATA_DIR, or else ~/tensorflow_datasets,
  as TFDS has it.
  """
  default = os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets')
  return pathlib.Path(data_dir or default).expanduser()


def dataset_folder(dataset: str, data_dir: str = '') -> pathlib.Path:
  """Returns the folder of the newest built version of a data set.

  Args:
    dataset: Such as 'pinpp'.
    data_dir: As given to the builder, or empty: see `data_folder`.

  Raises:
    UserError: If none is built there.
  """
  root = data_folder(data_dir)
  folder = root / dataset
  versions = [p.parent for p in folder.glob('*/dataset_info.json')]
  # Shards under construction lie in folders whose names are no versions.
  versions = [p for p in versions if p.name.replace('.', '').isdigit()]
  if not versions:
    manual = '' if dataset == 'pinpp_mini' else ' --manual_dir=DIR'
    raise UserError(
      f'No data set {dataset!r} at {folder}/<version>/dataset_info.json.'
      f' Build it: python -m pinpp_jax.tools.build {dataset}{manual}'
      f' --data_dir={root}'
    )
  return max(versions, key=lambda p: [int(n) for n in p.name.split('.')])


def file_names(dataset: str, data_dir: str = '') -> frozenset[str]:
  """Returns the file names of all images of a data set, of every split."""
  folder = dataset_folder(dataset, data_dir)
  if (folder / splits.FILE).is_file():
    return frozenset(itertools.chain(*splits.load(folder).values()))
  sources = [
    Recorded(dataset=dataset, data_dir=data_dir, split=split)
    for split in tfds.builder_from_directory(folder).info.splits
  ]
  return frozenset(s.file_name(i) for s in sources for i in range(len(s)))


class Recorded:
  """Examples of a data set built by `pinpp_jax.tools.build` or `tfds build`.

  Args: `data_dir`, `split` ('train', 'validation',
  'test', or a part of one in TFDS's notation such as 'train[:10%]'),
  `split_hash` (if given, the hash the split must have).

  Raises:
    UserError: If the data set or the split does not exist, or a numbering or
      a hash is not the expected one.
  """

  def __init__(
    self,
    *,
    split: str,
    dataset: str = 'pinpp',
    data_dir: str = '',
    split_hash: str = '',
    labels: LabelTable | None = None,
  ):
    self.folder = dataset_folder(dataset, data_dir)
    self._split = split
    self.labels = _table(self.folder)
    if labels is not None and labels.hash != self.labels.hash:
      raise UserError(
        f'{self.folder} numbers its classes and parts differently'
        f' ({_size(self.labels)}, hash {self.labels.hash[:12]}) from the'
        f' table in use ({_size(labels)}, hash {labels.hash[:12]}).'
      )
    if split_hash and split_hash != self.split_hash:
      raise UserError(
        f'The split of {self.folder} has the hash {self.split_hash!r}, not'
        f' {split_hash!r}: it was built from another list of images.'
      )
    self._records = _open(self.folder, split)

  @functools.cached_property
  def split_hash(self) -> str:
    """SHA-256 of which image is in which split; '' for a data set without."""
    if not (self.folder / splits.FILE).is_file():
      return ''
    return splits.hash_of(splits.load(self.folder))

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Example:
    record = self._record(index)
    source = record['source'].decode()
    return Example(
      image=record['image'],
      part_mask=None if source == 'none' else record['part_mask'],
      label=int(record['label']),
      file_name=record['file_name'].decode(),
      source=source,
      wnid=record['wnid'].decode(),
    )

  def file_name(self, index: int) -> str:
    """Returns the file name of the example at `index`."""
    return self._record(index)['file_name'].decode()

  def annotations(self, index: int) -> list[dict[str, Any]]:
    """Returns the COCO entries of the image at `index`."""
    return json.loads(self._record(index)['annotations'])

  def _record(self, index: int) -> Mapping[str, Any]:
    # Python stops iterating a sequence at an IndexError, not at a bad read.
    if not 0 <= index < len(self):
      raise IndexError(index)
    try:
      return self._records[index]
    except Exception as e:
      raise UserError(
        f'Record {index} of {self._split} in {self.folder} cannot be read'
        f' ({e}): a shard is damaged. Delete the folder and build it again.'
      ) from e


class ImageNet:
  """Images of an ImageNet copy, with a class and without parts.

  Args: `path` of the copy in any usual layout, `split`
  ('train' or 'validation'), `exclude` and `data_dir`: names of built data sets
  none of whose images, of any split, appear here; without it images held out
  for evaluation would come back as training images.

  Classes are numbered by `labels`; images of other classes are left out.

  Raises:
    UserError: If the copy lacks one of its classes.
  """

  def __init__(
    self,
    *,
    path: str,
    split: str = 'train',
    exclude: Collection[str] = (),
    data_dir: str = '',
    labels: LabelTable,
  ):
    self.labels = labels
    self._copy = imagenet.open_copy(path)
    self._split = split
    number = {wnid: i for i, wnid in enumerate(labels.wnids)}
    hidden = {n for name in exclude for n in file_names(name, data_dir)}
    rows = [
      (name, label)
      for name in self._copy.file_names(split)
      if (label := number.get(self._copy.wnid(name))) is not None
    ]
    _check_classes({label for _, label in rows}, labels, f'{path} ({split})')
    rows = [row for row in rows if row[0] not in hidden]
    # A million short strings as one array: small, and quick to send to workers.
    self._names = np.array([name.encode() for name, _ in rows], np.bytes_)
    self._label = np.array([label for _, label in rows], np.int32)

  def __len__(self) -> int:
    return len(self._label)

  def __getitem__(self, index: int) -> Example:
    name, label = self.file_name(index), int(self._label[index])
    return Example(
      image=self._copy.read(name, self._split),
      part_mask=None,
      label=label,
      file_name=name,
      source='none',
      wnid=self.labels.wnids[label],
    )

  def file_name(self, index: int) -> str:
    """Returns the file name of the example at `index`."""
    return self._names[index].decode()


@dataclasses.dataclass(frozen=True)
class Concatenated:
  """Several sources one after another, seen as one.

  Attributes:
    sources: Numbered by one label table.
    repeats: How many times each is passed through in one epoch; once if empty.
  """

  sources: Sequence[Source]
  repeats: Sequence[int] = ()

  def __post_init__(self):
    if not self.sources:
      raise UserError('There is no source to read from.')
    if self.repeats and len(self.repeats) != len(self.sources):
      raise UserError(
        f'{len(self.repeats)} repeats for {len(self.sources)} sources.'
      )
    if min(self.repeats, default=1) < 1:
      raise UserError(f'A repeat is below 1: {tuple(self.repeats)}.')
    if len({source.labels.hash for source in self.sources}) > 1:
      sizes = [_size(source.labels) for source in self.sources]
      raise UserError(f'The sources have different label tables: {sizes}.')

  @property
  def labels(self) -> LabelTable:
    """The numbering that all sources share."""
    return self.sources[0].labels

  @functools.cached_property
  def _ends(self) -> list[int]:
    repeats = self.repeats or [1] * len(self.sources)
    pairs = zip(self.sources, repeats, strict=True)
    return list(itertools.accumulate(len(s) * n for s, n in pairs))

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, index: int) -> Example:
    source, i = self._locate(index)
    return source[i]

  def file_name(self, index: int) -> str:
    """Returns the file name of the example at `index`."""
    source, i = self._locate(index)
    return source.file_name(i)

  def _locate(self, index: int) -> tuple[Source, int]:
    if not 0 <= index < len(self):
      raise IndexError(index)
    which = bisect.bisect_right(self._ends, index)
    source = self.sources[which]
    start = self._ends[which - 1] if which else 0
    return source, (index - start) % len(source)


@dataclasses.dataclass(frozen=True)
class Chosen:
  """Some examples of a source, in a given order."""

  source: Source
  indices: Sequence[int]

  @property
  def labels(self) -> LabelTable:
    """The numbering of the source."""
    return self.source.labels

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> Example:
    return self.source[self.indices[index]]

  def file_name(self, index: int) -> str:
    """Returns the file name of the example at `index`."""
    return self.source.file_name(self.indices[index])


def _open(folder: pathlib.Path, split: str) -> Sequence[Mapping[str, Any]]:
  """Returns the records of a split, images and masks left encoded."""
  builder: Any = tfds.builder_from_directory(folder)
  skip = tfds.decode.SkipDecoding()
  encoded = {k: skip for k in ('image', 'part_mask')}
  try:
    return builder.as_data_source(split, decoders=encoded)
  except (ValueError, KeyError, AssertionError) as e:
    raise UserError(
      f'split={split!r} is not one of {sorted(builder.info.splits)} of'
      f' {folder}, nor a part of one in TFDS notation.'
    ) from e


def _table(folder: pathlib.Path) -> LabelTable:
  path = folder / 'labels.json'
  if not path.is_file():
    raise UserError(
      f'{folder} has no labels.json: its build did not finish. Delete the'
      ' folder and build it again.'
    )
  return LabelTable.load(path)


def _size(labels: LabelTable) -> str:
  return f'{labels.num_classes} classes, {labels.num_parts} parts'


def _check_classes(found: set[int], labels: LabelTable, where: str) -> None:
  missing = [w for i, w in enumerate(labels.wnids) if i not in found]
  if missing:
    raise UserError(
      f'{where} has no image of {len(missing)} of {labels.num_classes}'
      f' classes: {", ".join(missing[:5])}{", ..." * (len(missing) > 5)}.'
    )
