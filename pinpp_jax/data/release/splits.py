"""The canonical split of the annotated images, and files that override it.

The release has no split. Ours depends on file names only: inside a class the
images are ordered by the SHA-256 of their names; the last tenth is the test
set, the tenth before it validation, the rest training.
"""

from collections.abc import Iterable, Mapping, Sequence
import hashlib
import os
import pathlib

from pinpp_jax.data import labels, text
from pinpp_jax.errors import UserError

NAMES = ('train', 'validation', 'test')
FILE = 'splits.json'  # beside the shards of a built data set
CANONICAL = 'by sha256 of the file name: 80 % train, 10 % validation, 10 % test'
GIVEN = 'from the files in splits/'

Split = dict[str, tuple[str, ...]]  # name of the split -> file names


def order(file_names: Iterable[str]) -> list[str]:
  """Returns file names ordered by the hexadecimal SHA-256 of the name."""
  return sorted(
    file_names, key=lambda name: hashlib.sha256(name.encode()).hexdigest()
  )


def sizes(count: int) -> tuple[int, int, int]:
  """Returns how many of a class's images are train, validation and test.

  Validation and test are a tenth each, rounded to the nearest (halves up), and
  at least one when there are three images or more; training is the rest. 100
  images give 80, 10, 10; 67 give 53, 7, 7; 3 give 1, 1, 1; 2 give 2, 0, 0.
  """
  held = max((count + 5) // 10, 1) if count > 2 else 0
  return count - 2 * held, held, held


def canonical(classes: Iterable[Sequence[str]]) -> Split:
  """Returns the canonical split of the file names of each class."""
  result: dict[str, list[str]] = {name: [] for name in NAMES}
  for file_names in classes:
    ordered = order(file_names)
    start = 0
    for name, size in zip(NAMES, sizes(len(ordered)), strict=True):
      result[name] += ordered[start : start + size]
      start += size
  return {name: tuple(files) for name, files in result.items()}


def hash_of(split: Mapping[str, Iterable[str]]) -> str:
  """Returns the SHA-256 of a split: which names are where, in no order."""
  digest = hashlib.sha256()
  for name in NAMES:
    for file_name in sorted(split.get(name, ())):
      digest.update(f'{name} {file_name}\n'.encode())
  return digest.hexdigest()


def given(folder: str | os.PathLike[str], known: Iterable[str]) -> Split | None:
  """Returns the split that files in a release folder prescribe, if any.

  Args:
    folder: may hold splits/train.txt, splits/validation.txt, splits/test.txt
      (one file name a line; blank lines and lines from '#' are comments) and
      splits/hash.txt, the hash the three must have.
    known: the file names of all annotated images.

  Raises:
    UserError: a file is missing, a name is unknown or appears twice, or the
      hash differs.
  """
  base = pathlib.Path(folder) / 'splits'
  paths = {name: base / f'{name}.txt' for name in NAMES}
  there = [name for name in NAMES if paths[name].is_file()]
  if not there:
    return None
  absent = [name for name in NAMES if name not in there]
  if absent:
    raise UserError(
      f'{base} has {there[0]}.txt but not {absent[0]}.txt; give all three '
      '(an empty file is allowed) or none'
    )
  names = frozenset(known)
  place: dict[str, str] = {}
  for split, path in paths.items():
    for number, name in text.lines(path):
      if name.startswith('#'):
        continue
      where = f'{path}, line {number}'
      if name not in names:
        raise UserError(f'{where}: {name!r} is no annotated image')
      if name in place:
        raise UserError(f'{where}: {name} is already in {place[name]}.txt')
      place[name] = split
  split = {
    name: tuple(order(f for f, where in place.items() if where == name))
    for name in NAMES
  }
  if not split['train']:
    raise UserError(f'{paths["train"]}: lists no images')
  _check_given_hash(base / 'hash.txt', split)
  return split


def _check_given_hash(path: pathlib.Path, split: Split) -> None:
  if not path.is_file():
    return
  expected = text.read(path).strip()
  if expected != hash_of(split):
    raise UserError(
      f'{path}: the split files have the hash {hash_of(split)}, not '
      f'{expected or "(empty)"}; they were changed or are incomplete'
    )


def save(
  folder: str | os.PathLike[str], split: Mapping[str, Sequence[str]], rule: str
) -> None:
  """Writes splits.json: the names in the order of the records, and the hash."""
  value = {
    'rule': rule,
    'hash': hash_of(split),
    'counts': {name: len(split.get(name, ())) for name in NAMES},
  }
  value |= {name: list(split.get(name, ())) for name in NAMES}
  labels.write_json(pathlib.Path(folder) / FILE, value)


def load(folder: str | os.PathLike[str]) -> Split:
  """Returns the split of a built data set, in the order of its records.

  Raises:
    UserError: splits.json is missing, broken, or does not match its hash.
  """
  path = pathlib.Path(folder) / FILE
  data = text.read_json(path)
  try:
    split = {name: tuple(data[name]) for name in NAMES}
    stored, found = data['hash'], hash_of(split)
    if not isinstance(stored, str):
      raise TypeError('the hash is no text')
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(
      f'{path}: is not a split file ({repr(error)[:200]})'
    ) from error
  if stored != found:
    raise UserError(
      f'{path}: the lists do not match the hash {stored[:64]}; the file was '
      'changed. Build the data set again.'
    )
  return split
