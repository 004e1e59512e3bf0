"""The label table: which number means which part of which class.

Global ids 1..P number the parts class by class in the order of sorted wnids,
inside a class in the order of the release's file; 0 is background. Masks on
disk hold the local index 1..n of their class, and the table leads from one to
the other. P is always counted from the data: the paper says 3,308, the
official class file 3,310, and both can be loaded.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import functools
import hashlib
import json
import os
import re
from typing import Any

import numpy as np

from pinpp_jax.data import text
from pinpp_jax.data.files import write_json
from pinpp_jax.data.release.records import ClassRecord
from pinpp_jax.errors import UserError

_FORMAT = 1
# They become names of folders and files.
_WNID = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.-]*')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """One part of one class.

  `parent` holds the full names of the parts that contain it directly, `count`
  the number of its annotations in the data set the table came with, and
  `category_id` is its number in the release's file of its class, by which
  stored annotations name it; None in a table that knows none.
  """

  global_id: int
  wnid: str
  object_name: str
  name: str
  generic_name: str
  local_index: int
  parent: tuple[str, ...] = ()
  count: int = 0
  category_id: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelTable:
  """All classes and parts of a data set.

  `wnids` are sorted and their position is the class index; `object_names`
  follow the same order; `parts` are in the order of their global ids. A class
  may have no parts.

  Raises:
    UserError: when the classes are unsorted or the numbering has gaps.
  """

  wnids: tuple[str, ...]
  object_names: tuple[str, ...]
  parts: tuple[Part, ...]

  def __post_init__(self):
    if bad := [wnid for wnid in self.wnids if not _WNID.fullmatch(wnid)]:
      raise UserError(
        f'label table: {bad[0][:60]!r} is no wnid such as n01440764, and could '
        'lead out of a folder'
      )
    if list(self.wnids) != sorted(set(self.wnids)):
      raise UserError('label table: wnids must be sorted and unique')
    if len(self.object_names) != len(self.wnids):
      raise UserError('label table: every class needs one object name')
    expected = []
    for wnid, count in zip(self.wnids, self.part_counts, strict=True):
      expected += [(wnid, local) for local in range(1, int(count) + 1)]
    found = [(part.wnid, part.local_index) for part in self.parts]
    ids = [part.global_id for part in self.parts]
    if found != expected or ids != list(range(1, len(ids) + 1)):
      raise UserError(
        'label table: parts must be numbered from 1, class by class in the '
        'order of the wnids, without gaps'
      )

  @property
  def num_classes(self) -> int:
    """The number of classes, K."""
    return len(self.wnids)

  @property
  def num_parts(self) -> int:
    """The number of parts without background, P."""
    return len(self.parts)

  @functools.cached_property
  def part_counts(self) -> np.ndarray:
    """How many parts each class has: int32 (K,)."""
    index = {wnid: i for i, wnid in enumerate(self.wnids)}
    counts = np.zeros(len(self.wnids), np.int32)
    for part in self.parts:
      if part.wnid not in index:
        raise UserError(
          f'label table: part of an unknown class {str(part.wnid)[:60]!r}'
        )
      counts[index[part.wnid]] += 1
    return counts

  @functools.cached_property
  def first(self) -> np.ndarray:
    """The global id of each class's first part: int32 (K,)."""
    total = np.cumsum(self.part_counts, dtype=np.int32)
    return (total - self.part_counts + 1).astype(np.int32)

  @property
  def max_parts(self) -> int:
    """The largest number of parts in one class."""
    return int(self.part_counts.max(initial=0))

  @functools.cached_property
  def candidates(self) -> np.ndarray:
    """The part ids that a class admits: int32 (K, 1 + max_parts).

    Background, 0, comes first, then the class's parts. Places left over by
    classes with fewer parts hold 0 again.
    """
    k = np.arange(self.max_parts, dtype=np.int32)[None]
    first, counts = self.first[:, None], self.part_counts[:, None]
    ids = np.where(k < counts, first + k, 0)
    return np.pad(ids, ((0, 0), (1, 0))).astype(np.int32)

  @functools.cached_property
  def hash(self) -> str:
    """The SHA-256 of the numbering: of wnids and full names, in order."""
    lines = [f'class {wnid}' for wnid in self.wnids]
    lines += [f'part {part.wnid} {part.name}' for part in self.parts]
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()

  def class_index(self, wnid: str) -> int:
    """Returns a class's index.

    Raises:
      UserError: the table has no such class.
    """
    if wnid not in self._index:
      raise UserError(f'{wnid} is not one of the {self.num_classes} classes')
    return self._index[wnid]

  @functools.cached_property
  def _index(self) -> dict[str, int]:
    return {wnid: i for i, wnid in enumerate(self.wnids)}

  def of_class(self, wnid: str) -> tuple[Part, ...]:
    """Returns a class's parts in the order of their local indices."""
    index = self.class_index(wnid)
    start = int(self.first[index]) - 1
    return self.parts[start : start + int(self.part_counts[index])]

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes the table as JSON; the file is either whole or not there."""
    write_json(
      path,
      {
        'format': _FORMAT,
        'hash': self.hash,
        'checksum': _checksum(self),
        'num_classes': self.num_classes,
        'num_parts': self.num_parts,
        'classes': [
          {'wnid': wnid, 'object_name': name}
          for wnid, name in zip(self.wnids, self.object_names, strict=True)
        ],
        'parts': [dataclasses.asdict(part) for part in self.parts],
      },
    )

  @classmethod
  def load(cls, path: str | os.PathLike[str]) -> 'LabelTable':
    """Reads a saved table.

    Raises:
      UserError: the file is missing, is no label table, or was changed.
    """
    try:
      data = text.read_json(path)
    except UserError as error:
      raise UserError(
        f'{error}. A label table is written by the build of the data set; '
        'build it again.'
      ) from error
    try:
      table = cls(
        wnids=tuple(entry['wnid'] for entry in data['classes']),
        object_names=tuple(entry['object_name'] for entry in data['classes']),
        parts=tuple(
          Part(**dict(entry, parent=tuple(entry['parent'])))
          for entry in data['parts']
        ),
      )
      _check_types(table)
      stored, checksum = data['hash'], data.get('checksum')
    except UserError as error:
      raise UserError(f'{path}: {error}') from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise UserError(
        f'{path}: is not a label table ({repr(error)[:200]})'
      ) from error
    # Tables of early builds have no checksum.
    if stored != table.hash or checksum not in (None, _checksum(table)):
      raise UserError(
        f'{path}: the content does not match its hash; the file was changed. '
        'Build the data set again.'
      )
    return table


def _checksum(table: LabelTable) -> str:
  """Returns the SHA-256 of all that a table holds, not of the numbering alone.

  Counts are left out: they belong to the data set that the table came with.
  """
  parts = [dataclasses.replace(part, count=0) for part in table.parts]
  content = [table.wnids, table.object_names, *map(dataclasses.astuple, parts)]
  return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _check_types(table: LabelTable) -> None:
  """Raises TypeError where a file holds something else than it should."""
  of_part = {part.wnid: set() for part in table.parts}
  for part in table.parts:
    of_part[part.wnid].add(part.name)
  for part in table.parts:
    for field in ('wnid', 'object_name', 'name', 'generic_name'):
      _expect(getattr(part, field), str)
    for field in ('global_id', 'local_index', 'count'):
      _expect(getattr(part, field), int)
    if part.category_id is not None:
      _expect(part.category_id, int)
    if set(part.parent) - of_part[part.wnid]:
      raise TypeError(f'{part.name[:60]} is in a part that is not there')
  for name in table.object_names:
    _expect(name, str)


def _expect(value: Any, kind: type) -> None:
  if type(value) is not kind:
    raise TypeError(f'{str(value)[:60]} is no {kind.__name__}')


def class_parts(record: ClassRecord, first: int) -> tuple[Part, ...]:
  """Returns a class's parts, numbered from the global id `first`."""
  counts = record.part_counts()
  return tuple(
    Part(
      global_id=first + i,
      wnid=record.wnid,
      object_name=record.object_name,
      name=name,
      generic_name=record.generic_names[i],
      local_index=i + 1,
      parent=tuple(record.part_names[p - 1] for p in record.parents[i]),
      count=int(counts[i]),
      category_id=record.category_ids[i],
    )
    for i, name in enumerate(record.part_names)
  )


def class_record(table: LabelTable, wnid: str) -> ClassRecord:
  """Returns a class as painting needs it: its parts, but no images.

  Raises:
    UserError: the table has no such class.
  """
  parts = table.of_class(wnid)
  local = {part.name: part.local_index for part in parts}
  return ClassRecord(
    wnid=wnid,
    object_name=table.object_names[table.class_index(wnid)],
    part_names=tuple(local),
    generic_names=tuple(part.generic_name for part in parts),
    category_ids=tuple(part.category_id for part in parts),
    parents=tuple(tuple(local[n] for n in part.parent) for part in parts),
    images=(),
  )


def from_classes(records: Iterable[ClassRecord]) -> LabelTable:
  """Returns the table of a release whose classes come in sorted order."""
  wnids: list[str] = []
  object_names: list[str] = []
  parts: list[Part] = []
  for record in records:
    wnids.append(record.wnid)
    object_names.append(record.object_name)
    parts += class_parts(record, len(parts) + 1)
  return LabelTable(
    wnids=tuple(wnids), object_names=tuple(object_names), parts=tuple(parts)
  )


def class_only(
  wnids: Sequence[str], object_names: Sequence[str] = ()
) -> LabelTable:
  """Returns a table of classes without parts, sorted by wnid."""
  names = dict(zip(wnids, object_names or wnids, strict=True))
  return LabelTable(
    wnids=tuple(sorted(names)),
    object_names=tuple(names[wnid] for wnid in sorted(names)),
    parts=(),
  )
