"""Pseudo labels on disk: the data set `pinpp_pseudo`.

Its records have the features of `pinpp`, with a predicted mask (`source` is
'pseudo') and the network's confidence. Beside the shards are `labels.json` and
`manifest.json`: the network that predicted the masks, its images and settings,
which images were left out and why, and each shard's number of records, bytes
and SHA-256.

A set is written to `<folder>.partial` and renamed at the end, so that an
unfinished one can never be opened. Every shard is written under a temporary
name and renamed; then its note is written to `progress/`. A shard with a note
is finished. A run that is killed therefore loses at most the shard it was
writing, and the finished set is the same whether or not that happened.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer, naming

from pinpp_jax.data import features
from pinpp_jax.data.labels import LabelTable, write_json
from pinpp_jax.data.release import splits
from pinpp_jax.errors import UserError

NAME = 'pinpp_pseudo'
RELEASE = '1.0.0'
MANIFEST = 'manifest.json'
COMMAND = 'python -m pinpp_jax.main --config=configs/label.py'
PLAN = 'plan.json'
PROGRESS = 'progress'
DESCRIPTION = (
  'ImageNet images with part masks drawn by a part segmenter that was trained '
  'on PartImageNet++ and told the class of each image: pseudo labels, not '
  'checked by anybody. manifest.json names the segmenter. `confidence` is the '
  "mean probability of the winning part over an image's pixels, "
  '`part_confidence` the same over the pixels of each part of the class. The '
  'images are subject to the terms of ImageNet.'
)


class Pseudo(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Reads `pinpp_pseudo`; it cannot build it: that takes a trained network."""

  name = NAME
  VERSION = tfds.core.Version(RELEASE)
  RELEASE_NOTES = {RELEASE: 'First version.'}
  # Nothing is downloaded; see PartBuilder.
  url_infos = None

  def __init__(self, *, file_format: Any = None, **keywords: Any):
    """Makes a builder of ArrayRecord files."""
    super().__init__(file_format=file_format or 'array_record', **keywords)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self, description=DESCRIPTION, features=record_features()
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    raise UserError(
      f'{NAME} is made by a trained part segmenter: {COMMAND} writes it to'
      f' {self.data_dir}.'
    )

  def _generate_examples(self):
    return iter(())  # TFDS wants the method; `_split_generators` refuses.


def record_features(
  labels: LabelTable | None = None, images: bool = True
) -> tfds.features.FeaturesDict:
  """Returns the features of a record; classes are unnamed without a table."""
  wnids = list(labels.wnids) if labels else None
  found = features.of_record(tfds.features.ClassLabel(names=wnids)) | {
    'confidence': np.float32,
    'part_confidence': tfds.features.Tensor(shape=(None,), dtype=np.float32),
  }
  if not images:
    del found['image']
  return tfds.features.FeaturesDict(found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
  """The note on a finished shard.

  Attributes:
    name: File name.
    count: Records.
    bytes: Size of the file.
    payload: Bytes of its records alone.
    sha256: Of the file.
    images: File names, in the order of the records.
    skipped: (file name, reason) of the shard's images that have no record.
  """

  name: str
  count: int
  bytes: int
  payload: int
  sha256: str
  images: tuple[str, ...]
  skipped: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draft:
  """A set that is being written.

  Attributes:
    output: Folder of the finished set, named by its version.
    labels: The label table.
    shards: How many shards it will have.
    images: Whether its records hold the images, or masks alone.
  """

  output: pathlib.Path
  labels: LabelTable
  shards: int
  images: bool = True

  @property
  def folder(self) -> pathlib.Path:
    """The folder of the set until it is finished."""
    return self.output.with_name(self.output.name + '.partial')

  @property
  def finished(self) -> bool:
    """Whether the set is complete and has its final name."""
    return (self.output / MANIFEST).is_file()

  @property
  def plan(self) -> dict[str, Any] | None:
    """The plan of the finished or begun set; None if there is neither."""
    if self.finished:
      manifest = read_manifest(self.output)
      return {k: v for k, v in manifest.items() if k not in _RESULTS}
    path = self.folder / PROGRESS / PLAN
    return json.loads(path.read_text()) if path.is_file() else None

  def begin(self, plan: Mapping[str, Any]) -> None:
    """Makes the folder and writes the plan: what the set is made from.

    Raises:
      UserError: If the folder cannot be made.
    """
    with self._room('the folder'):
      (self.folder / PROGRESS).mkdir(parents=True, exist_ok=True)
      write_json(self.folder / PROGRESS / PLAN, plan)

  def name(self, shard: int) -> str:
    """Returns a shard's file name."""
    return self._template.sharded_filepath(
      shard_index=shard, num_shards=self.shards
    ).name

  def note(self, shard: int) -> Note | None:
    """Returns the note on a shard, None if it is not finished."""
    path = self._note_path(shard)
    if not path.is_file():
      return None
    fields = json.loads(path.read_text())
    fields['images'] = tuple(fields['images'])
    fields['skipped'] = tuple(map(tuple, fields['skipped']))
    return Note(**fields)

  def is_whole(self, shard: int) -> bool:
    """Returns whether a shard is finished and its bytes are as noted."""
    note, path = self.note(shard), self.folder / self.name(shard)
    return (
      note is not None
      and path.is_file()
      and path.stat().st_size == note.bytes
      and _sha256(path) == note.sha256
    )

  def write(
    self,
    shard: int,
    records: Iterable[Mapping[str, Any]],
    skipped: Iterable[tuple[str, str]] = (),
  ) -> Note:
    """Writes a shard atomically.

    Raises:
      UserError: If the disk is full or the folder cannot be written.
    """
    target = self.folder / self.name(shard)
    temporary = self.folder / f'.{target.name}.tmp'
    rows = list(records)
    serialised = list(_serialised(rows, self._features))
    payload = sum(map(len, serialised))
    with self._room(f'{target.name} with {payload:,} bytes of records'):
      try:
        self._note_path(shard).unlink(missing_ok=True)
        _write(temporary, serialised)
        note = Note(
          name=target.name,
          count=len(serialised),
          bytes=temporary.stat().st_size,
          payload=payload,
          sha256=_sha256(temporary),
          images=tuple(row['file_name'] for row in rows),
          skipped=tuple(skipped),
        )
        os.replace(temporary, target)
        write_json(self._note_path(shard), dataclasses.asdict(note))
      finally:
        temporary.unlink(missing_ok=True)
    return note

  def publish(self, skipped: Iterable[tuple[str, str]] = ()) -> None:
    """Completes the set and renames it; all shards must be finished.

    Args:
      skipped: (file name, reason) of left-out images that no note names.

    Raises:
      UserError: If the disk is full.
    """
    notes = [note for i in range(self.shards) if (note := self.note(i))]
    if len(notes) != self.shards:
      raise RuntimeError(f'{self.shards - len(notes)} shards are missing.')
    shards = [
      {k: v for k, v in dataclasses.asdict(note).items() if k not in _INTERNAL}
      for note in notes
    ]
    left_out = [*skipped, *(s for note in notes for s in note.skipped)]
    results = dict(zip(_RESULTS, (left_out, shards), strict=True))
    with self._room('the manifest'):
      self._remove_all_but({note.name for note in notes} | {PROGRESS})
      self.labels.save(self.folder / 'labels.json')
      images = [name for note in notes for name in note.images]
      splits.save(self.folder, {'train': images}, 'all are for training')
      write_json(self.folder / MANIFEST, {**(self.plan or {}), **results})
      _write_info(self.folder, self._features, notes, self._template)
      self.folder.rename(self.output)
    self.tidy()

  def tidy(self) -> None:
    """Removes the progress notes from a finished set."""
    shutil.rmtree(self.output / PROGRESS, ignore_errors=True)

  def _note_path(self, shard: int) -> pathlib.Path:
    return self.folder / PROGRESS / f'{shard:05d}.json'

  @property
  def _features(self) -> tfds.features.FeaturesDict:
    return record_features(self.labels, self.images)

  @property
  def _template(self) -> naming.ShardedFileTemplate:
    folder: Any = self.folder  # TFDS's annotation knows its own paths only.
    return naming.ShardedFileTemplate(
      data_dir=folder,
      template=naming.DEFAULT_FILENAME_TEMPLATE,
      dataset_name=NAME,
      split='train',
      filetype_suffix='array_record',
    )

  def _remove_all_but(self, names: Collection[str]) -> None:
    """Removes the files that killed runs have left."""
    for path in self.folder.iterdir():
      if path.name not in names:
        path.unlink()

  @contextlib.contextmanager
  def _room(self, what: str) -> Iterator[None]:
    """Turns write errors, such as a full disk, into a UserError."""
    try:
      yield
    except (OSError, RuntimeError) as error:  # ArrayRecord raises the latter.
      raise UserError(
        f'{self.folder}: {what} could not be written ({_first_line(error)}).'
        ' Free some disk space and run the same command again; finished shards'
        ' are kept.'
      ) from error


# Keys of the manifest that are not in the plan.
_RESULTS = ('skipped', 'shards')
# Keys of a note that are not in the manifest.
_INTERNAL = ('payload', 'images', 'skipped')


def check(folder: pathlib.Path) -> None:
  """Compares a finished set with its manifest: files and sizes, not contents.

  Raises:
    UserError: If the manifest or a shard is missing, or a shard has the wrong
      size or number of records.
  """
  manifest = read_manifest(folder)
  counts = _record_counts(folder)
  again = f'Delete {folder} and make it again: {COMMAND}'
  if len(counts) != len(manifest['shards']):
    raise UserError(
      f'{folder} has {len(counts)} shards, but its {MANIFEST} lists'
      f' {len(manifest["shards"])}. {again}'
    )
  for shard, count in zip(manifest['shards'], counts, strict=True):
    path = folder / shard['name']
    if not path.is_file():
      raise UserError(f'{path} is missing. Copy it again, or: {again}')
    size = path.stat().st_size
    if size != shard['bytes']:
      raise UserError(
        f'{path} has {size:,} bytes instead of {shard["bytes"]:,}: it was cut'
        f' short or changed. Copy it again, or: {again}'
      )
    if count != shard['count']:
      raise UserError(
        f'{path} has {count} records, but its {MANIFEST} says'
        f' {shard["count"]}. {again}'
      )


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
  """Returns `manifest.json` of a finished set.

  Raises:
    UserError: If it is missing or damaged.
  """
  path = folder / MANIFEST
  try:
    return json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise UserError(
      f'{path} cannot be read ({error}). Delete {folder} and make it again:'
      f' {COMMAND}'
    ) from error


def hash_of(folder: pathlib.Path) -> str:
  """Returns the SHA-256 of a set's manifest, which holds its shards' hashes."""
  return _sha256(folder / MANIFEST)


def _record_counts(folder: pathlib.Path) -> list[int]:
  """Returns the number of records of each shard in dataset_info.json."""
  info = json.loads((folder / 'dataset_info.json').read_text())
  return [int(n) for s in info['splits'] for n in s['shardLengths']]


def _serialised(
  records: Iterable[Mapping[str, Any]], shape: tfds.features.FeaturesDict
) -> Iterable[bytes]:
  specs: Any = shape.get_serialized_info()
  serializer = example_serializer.ExampleSerializer(specs)
  for record in records:
    stored = {name: record[name] for name in shape}
    proto = serializer.get_tf_example(shape.encode_example(stored))
    # A map's entries have any order unless they are asked to be sorted.
    yield proto.SerializeToString(deterministic=True)


def _write(path: pathlib.Path, records: Iterable[bytes]) -> None:
  """Writes an ArrayRecord file and flushes it to disk."""
  # One record per group: any record can be read without its neighbours.
  writer = ArrayRecordWriter(os.fspath(path), 'group_size:1')
  for record in records:
    writer.write(record)
  writer.close()
  with open(path, 'rb') as file:
    os.fsync(file.fileno())


def _write_info(
  folder: pathlib.Path,
  shape: tfds.features.FeaturesDict,
  notes: list[Note],
  template: naming.ShardedFileTemplate,
) -> None:
  """Writes the metadata files of TFDS, `dataset_info.json` last."""
  info = tfds.core.DatasetInfo(
    # An identity, not a builder: a builder would write its module's name.
    builder=tfds.core.DatasetIdentity(
      name=NAME,
      version=tfds.core.Version(RELEASE),
      data_dir=os.fspath(folder),
      module_name='',
    ),
    features=shape,
    description=DESCRIPTION,
  )
  info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
  split = tfds.core.SplitInfo(
    name='train',
    shard_lengths=[note.count for note in notes],
    num_bytes=sum(note.payload for note in notes),
    filename_template=template,
  )
  info.set_splits(tfds.core.SplitDict([split]))
  info.write_to_directory(folder)


def _sha256(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _first_line(error: Exception) -> str:
  return str(error).strip().split('\n', 1)[0][:200]
