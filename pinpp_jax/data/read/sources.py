"""Sources: sequences of encoded examples with random access.

A source has a length, returns the `Example` at an index, knows its label table
and each example's file name, and opens its files on first use, so that it can
be pickled for worker processes. Nothing here decodes an image.
"""

import bisect
from collections.abc import Collection, Mapping, Sequence
import dataclasses
import functools
import itertools
import json
import pathlib
from typing import Any, Protocol, TypedDict

from absl import logging
import numpy as np
import tensorflow_datasets as tfds

from pinpp_jax.data.imagenet import layouts
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read import pseudo
from pinpp_jax.data.read.shards import Records
from pinpp_jax.data.release import splits
from pinpp_jax.errors import DamagedError, UserError
from pinpp_jax.machine import data_folder as data_folder_lib


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
    """The label table: numbers of classes and parts."""
    ...

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...

  def file_name(self, index: int) -> str:
    """Returns the file name of the example at `index`."""
    ...


class Split(Source, Protocol):
  """A source for an evaluation, with a description of its images."""

  @property
  def about(self) -> dict[str, Any]:
    """The description of these images in a result's JSON.

    It has 'folder', and 'split_hash': the hash of the split, '' if unknown.
    """
    ...


def data_folder(data_dir: str = '') -> pathlib.Path:
  """Returns the folder of built data sets: `data_dir`, if given.

  Else that of `pinpp_jax.machine.data_folder`.
  """
  if data_dir:
    return pathlib.Path(data_dir).expanduser()
  return data_folder_lib.default()


def dataset_folder(dataset: str, data_dir: str = '') -> pathlib.Path:
  """Returns the folder of the newest built version of a data set.

  Args:
    dataset: A name such as 'pinpp', or the folder of one version: a path with
      a slash, or a folder that holds a dataset_info.json.
    data_dir: As given to the builder; if empty, see `data_folder`.

  Raises:
    UserError: If no built data set is there.
  """
  root = data_folder(data_dir)
  if dataset and (given := _given(dataset)):
    return given
  versions = _versions(root / dataset)
  if not versions:
    usual = data_folder_lib.USUAL
    there = _versions(usual / dataset)
    way_out = (
      f'There is one in {usual}: --data_dir={usual}'
      f' (of a run: --config.data.data_dir={usual}).'
      if there
      else _how_to_make(dataset, root)
    )
    raise UserError(
      f'Data set {dataset!r} was not found: there is no'
      f' {root / dataset}/<version>/dataset_info.json. {way_out}'
    )
  return max(versions, key=lambda p: [int(n) for n in p.name.split('.')])


def _versions(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the built versions in a folder.

  Unfinished builds are in folders whose names are not versions.
  """
  return [
    path.parent
    for path in folder.glob('*/dataset_info.json')
    if path.parent.name.replace('.', '').isdigit()
  ]


def _given(dataset: str) -> pathlib.Path | None:
  """Returns the folder if `dataset` is one, None if it is a name."""
  folder = pathlib.Path(dataset).expanduser()
  if (folder / 'dataset_info.json').is_file():
    return folder
  if '/' not in dataset:
    return None
  raise UserError(
    f'{folder} is not a data set: it has no dataset_info.json. Name the folder'
    ' of a version, such as .../pinpp_pseudo/1.0.0.'
  )


def _how_to_make(dataset: str, root: pathlib.Path) -> str:
  if dataset.startswith(pseudo.NAME):
    size = ':mini' if dataset.endswith('_mini') else ''
    return f'Make it: {pseudo.COMMAND}{size} --config.data.data_dir={root}'
  manual = '' if dataset == 'pinpp_mini' else ' --manual_dir=DIR'
  return f'Build it: pinpp build {dataset}{manual} --data_dir={root}'


def file_names(dataset: str, data_dir: str = '') -> frozenset[str]:
  """Returns the file names of all images in all splits of a data set."""
  folder = dataset_folder(dataset, data_dir)
  if (folder / splits.FILE).is_file():
    return frozenset(itertools.chain(*splits.load(folder).values()))
  sources = [
    Recorded(dataset=dataset, data_dir=data_dir, split=split)
    for split in tfds.builder_from_directory(folder).info.splits
  ]
  return frozenset(s.file_name(i) for s in sources for i in range(len(s)))


class Recorded:
  """Examples of a data set built by `pinpp build` or `tfds build`.

  Pseudo labels are read in the same way, after a comparison of their files with
  their manifest.

  Args: `dataset` (its name or folder, see `dataset_folder`), `data_dir`,
  `split` ('train', 'validation', 'test', or a part of one in TFDS's notation
  such as 'train[:10%]'), `split_hash` (if given, the hash the split must
  have), `labels` (if given, the table the data set must have), `images` (the
  ImageNet copy that a set of masks alone takes its images from; that of the
  manifest if empty).

  Raises:
    UserError: If the data set or the split does not exist, the label table or
      the split hash is not the expected one, or a shard of pseudo labels is
      missing.
  """

  def __init__(
    self,
    *,
    split: str,
    dataset: str = 'pinpp',
    data_dir: str = '',
    split_hash: str = '',
    labels: LabelTable | None = None,
    images: str = '',
  ):
    self.folder = dataset_folder(dataset, data_dir)
    self._split = split
    if (self.folder / pseudo.MANIFEST).exists() or dataset == pseudo.NAME:
      pseudo.check(self.folder)
    self.labels = _table(self.folder)
    if labels is not None and labels.hash != self.labels.hash:
      raise UserError(
        f'{self.folder} numbers its classes and parts differently'
        f' ({_size(self.labels)}, hash {self.labels.hash[:12]}) from the label'
        f' table in use ({_size(labels)}, hash {labels.hash[:12]}).'
      )
    if split_hash and split_hash != self.split_hash:
      raise UserError(
        f'The split of {self.folder} has the hash {self.split_hash!r}, not'
        f' {split_hash!r}: it was built from another list of images.'
      )
    builder = tfds.builder_from_directory(self.folder)
    self._records = Records(builder, split, ('image', 'part_mask'))
    self._copy = None
    if 'image' not in self._records.fields:
      self._copy = _images_of(self.folder, images, data_dir)

  @functools.cached_property
  def split_hash(self) -> str:
    """SHA-256 of which image is in which split; '' without a splits.json."""
    if not (self.folder / splits.FILE).is_file():
      return ''
    return splits.hash_of(splits.load(self.folder))

  @property
  def about(self) -> dict[str, Any]:
    """The description of these images in a result's JSON."""
    return {
      'folder': str(self.folder),
      'split': self._split,
      'split_hash': self.split_hash,
    }

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Example:
    record = self._record(index)
    source, name = record['source'].decode(), record['file_name'].decode()
    return Example(
      image=self._copy.read(name) if self._copy else record['image'],
      part_mask=None if source == 'none' else record['part_mask'],
      label=int(record['label']),
      file_name=name,
      source=source,
      wnid=record['wnid'].decode(),
    )

  def file_name(self, index: int) -> str:
    """Returns the file name of the example at `index`."""
    return self._record(index)['file_name'].decode()

  def annotations(self, index: int) -> list[dict[str, Any]]:
    """Returns the COCO entries of the image at `index`."""
    return json.loads(self._record(index)['annotations'])

  def confidence(self, index: int) -> tuple[float, np.ndarray]:
    """Returns the network's confidence: of the image, and float32 per part.

    Raises:
      KeyError: If the data set is not one of pseudo labels.
    """
    record = self._record(index)
    return float(record['confidence']), np.asarray(record['part_confidence'])

  def _record(self, index: int) -> Mapping[str, Any]:
    # Python ends the iteration over a sequence at an IndexError.
    if not 0 <= index < len(self):
      raise IndexError(index)
    try:
      return self._records[index]
    except DamagedError as e:
      raise DamagedError(
        f'Record {index} of {self._split} in {self.folder} cannot be read'
        f' ({e}): a shard is damaged. Copy that shard again, or delete the'
        ' folder and build it again.'
      ) from e


class ImageNet:
  """Images of an ImageNet copy, with a class and without parts.

  Args: `path` of the copy in any usual layout; `split`, 'train' or
  'validation'; `exclude`, names of built data sets (in `data_dir`) whose images
  are left out, those of every split: otherwise images held out for evaluation
  would come back as training images; `wnids`, the only classes to use, all if
  empty.

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
    wnids: Collection[str] = (),
    labels: LabelTable,
  ):
    self.labels = labels
    self._copy = layouts.open_copy(path, data_folder(data_dir) / 'index')
    self._split = split
    number = _numbers(labels, wnids)
    hidden = {n for name in exclude for n in file_names(name, data_dir)}
    names = self._copy.file_names(split)
    if odd := layouts.incomplete(names, split):
      logging.warning('%s: %s.', path, odd)
    rows = [
      (name, label)
      for name in names
      if (label := number.get(self._copy.wnid(name))) is not None
    ]
    _check_classes({label for _, label in rows}, number, f'{path} ({split})')
    rows = [row for row in rows if row[0] not in hidden]
    # One array of a million short strings is small and pickles quickly.
    self._names = np.array([name.encode() for name, _ in rows], np.bytes_)
    self._label = np.array([label for _, label in rows], np.int32)

  @property
  def about(self) -> dict[str, Any]:
    """What a result must say of these images, for JSON."""
    return {
      'folder': str(self._copy.path),
      'split': self._split,
      'split_hash': '',
    }

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


class TfdsImageNet:
  """Images of TFDS's own `imagenet2012`, with a class and without parts.

  The data set has no list of its images, so opening this source reads all of
  its records once.

  Args: `path` of a version's folder (the newest in `data_dir` if empty),
  `split`, `exclude`, `data_dir`, `wnids` and `labels` as in `ImageNet`.

  Raises:
    UserError: If there is no copy, it is not in ArrayRecord files, or it lacks
      a class.
  """

  def __init__(
    self,
    *,
    path: str = '',
    split: str = 'train',
    exclude: Collection[str] = (),
    data_dir: str = '',
    wnids: Collection[str] = (),
    labels: LabelTable,
  ):
    self.labels = labels
    self._folder = _imagenet2012(path, data_dir)
    self._records = _tfds_records(self._folder, split)
    number = _numbers(labels, wnids)
    hidden = {n for name in exclude for n in file_names(name, data_dir)}
    rows = []
    for i in range(len(self._records)):
      # 'n01440764_1.JPEG', without a folder.
      file = self._records[i]['file_name'].decode()
      wnid = file.partition('_')[0]
      if wnid in number:
        rows.append((f'{wnid}/{file}', number[wnid], i))
    where = f'{self._folder} ({split})'
    _check_classes({label for _, label, _ in rows}, number, where)
    rows = sorted(row for row in rows if row[0] not in hidden)
    self._names = np.array([name.encode() for name, _, _ in rows], np.bytes_)
    self._label = np.array([label for _, label, _ in rows], np.int32)
    self._place = np.array([place for _, _, place in rows], np.int64)

  def __len__(self) -> int:
    return len(self._label)

  def __getitem__(self, index: int) -> Example:
    label = int(self._label[index])
    try:
      record = self._records[int(self._place[index])]
    except DamagedError as e:
      raise DamagedError(
        f'{self.file_name(index)} cannot be read from {self._folder} ({e}): a'
        ' shard is damaged. Prepare the data set again.'
      ) from e
    return Example(
      image=record['image'],
      part_mask=None,
      label=label,
      file_name=self.file_name(index),
      source='none',
      wnid=self.labels.wnids[label],
    )

  def file_name(self, index: int) -> str:
    """Returns the file name of the example at `index`."""
    return self._names[index].decode()


@dataclasses.dataclass(frozen=True)
class Concatenated:
  """Several sources one after another, read as one.

  Attributes:
    sources: With the same label table.
    repeats: How many times an epoch reads each source; once if empty.
  """

  sources: Sequence[Source]
  repeats: Sequence[int] = ()

  def __post_init__(self):
    if not self.sources:
      raise UserError('There is no data source to read from.')
    if self.repeats and len(self.repeats) != len(self.sources):
      raise UserError(
        f'There are {len(self.repeats)} repeats for {len(self.sources)}'
        ' sources; each source needs one.'
      )
    if min(self.repeats, default=1) < 1:
      raise UserError(f'repeats={tuple(self.repeats)} must all be at least 1.')
    if len({source.labels.hash for source in self.sources}) > 1:
      sizes = [_size(source.labels) for source in self.sources]
      raise UserError(f'The sources have different label tables: {sizes}.')

  @property
  def labels(self) -> LabelTable:
    """The label table of all sources."""
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
    """The label table of the source."""
    return self.source.labels

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> Example:
    return self.source[self.indices[index]]

  def file_name(self, index: int) -> str:
    """Returns the file name of the example at `index`."""
    return self.source.file_name(self.indices[index])


def _images_of(
  folder: pathlib.Path, images: str, data_dir: str
) -> layouts.ImageNetCopy:
  """Returns the copy that holds the images of a set of masks alone."""
  root = data_folder(data_dir)
  path = images or pseudo.read_manifest(folder)['source']['path']
  try:
    return layouts.open_copy(
      root / pathlib.Path(path).expanduser(), root / 'index'
    )
  except UserError as error:
    raise UserError(
      f'{folder} holds part masks alone, and their images are not where they'
      f' were when it was made: {error} Set data.imagenet to the copy.'
    ) from error


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


def _numbers(labels: LabelTable, wnids: Collection[str]) -> dict[str, int]:
  """Returns the class index of each wnid, of all classes if there are none."""
  chosen = sorted(set(wnids)) or labels.wnids
  return {wnid: labels.class_index(wnid) for wnid in chosen}


def _imagenet2012(path: str, data_dir: str) -> pathlib.Path:
  """Returns the folder of TFDS's copy of ImageNet."""
  root = data_folder(data_dir)
  if path:
    found = [root / pathlib.Path(path).expanduser()]
  else:
    found = list((root / 'imagenet2012').glob('*.*.*'))
  found = [p for p in found if (p / 'dataset_info.json').is_file()]
  if not found:
    raise UserError(
      f'The TFDS data set imagenet2012 was not found at'
      f' {path or root / "imagenet2012/<version>"}. Prepare it:'
      ' tfds build imagenet2012 --file_format=array_record'
      f' --data_dir={root} --manual_dir=DIR (the folder of the ILSVRC tars).'
    )
  return max(found, key=lambda p: p.name)


def _tfds_records(folder: pathlib.Path, split: str) -> Records:
  """Returns the records of a split of imagenet2012; images stay encoded."""
  try:
    builder: Any = tfds.builder_from_directory(folder, 'array_record')
  except ValueError as e:
    raise UserError(
      f'{folder} is not stored as ArrayRecord, which random access needs.'
      f' Convert it: tfds convert_format --dataset_version_dir={folder}'
      ' --out_file_format=array_record'
    ) from e
  return Records(builder, split, ('image',))


def _check_classes(
  found: set[int], number: Mapping[str, int], where: str
) -> None:
  missing = [wnid for wnid, i in number.items() if i not in found]
  if missing:
    raise UserError(
      f'{where} has no image of {len(missing)} of {len(number)}'
      f' classes: {", ".join(missing[:5])}{", ..." * (len(missing) > 5)}.'
    )
