"""Random access to the files in an uncompressed tar, without unpacking it."""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import io
import os
import pathlib
import tarfile
import threading
from typing import Any, BinaryIO

from absl import logging
import numpy as np

from pinpp_jax.data import files, progress
from pinpp_jax.errors import DamagedError, UserError


class Index(Mapping[str, tuple[int, int]]):
  """Name -> (offset, size) in bytes of the files in a tar.

  An array, so that a million files are small and quick to send to workers; one
  that was read from a file is sent as that file's name.

  Args:
    rows: (name S, offset int64, size int64), sorted by name.
  """

  def __init__(self, rows: np.ndarray):
    self._rows = rows

  @classmethod
  def of(cls, places: Mapping[str, tuple[int, int]]) -> 'Index':
    """Returns the index of a dict."""
    named = sorted((n.encode(), *place) for n, place in places.items())
    width = max((len(name) for name, _, _ in named), default=1)
    kind = [('name', f'S{width}'), ('offset', 'i8'), ('size', 'i8')]
    return cls(np.array(named, kind))

  @classmethod
  def load(cls, path: pathlib.Path) -> 'Index':
    """Returns the index that was saved; all processes share its memory."""
    return cls(np.load(path, mmap_mode='r', allow_pickle=False))

  def save(self, path: pathlib.Path) -> None:
    """Writes the index, whole or not at all."""
    content = io.BytesIO()
    np.save(content, self._rows, allow_pickle=False)
    files.write(path, content.getvalue())

  def below(self, folder: str) -> list[str]:
    """Returns the names that begin with 'folder/', without it, sorted."""
    start, end = (
      np.searchsorted(self._rows['name'], (folder + c).encode()) for c in '/0'
    )
    names = self._rows['name'][start:end]
    return [name.decode()[len(folder) + 1 :] for name in names]

  def __getitem__(self, name: str) -> tuple[int, int]:
    place = np.searchsorted(self._rows['name'], name.encode())
    if place < len(self) and self._rows['name'][place] == name.encode():
      return int(self._rows['offset'][place]), int(self._rows['size'][place])
    raise KeyError(name)

  def __iter__(self) -> Iterator[str]:
    return (name.decode() for name in self._rows['name'])

  def __len__(self) -> int:
    return len(self._rows)

  def __reduce__(self) -> Any:
    file = getattr(self._rows, 'filename', None)
    return (Index.load, (file,)) if file else (Index, (self._rows,))


class Tar:
  """Reads bytes of a tar through one descriptor; pickles without it."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    self._lock = threading.Lock()
    self._file: int | None = None

  def read(self, name: str, offset: int, size: int) -> bytes:
    """Returns the bytes of the file `name`.

    Raises:
      DamagedError: the archive ends before the file does.
      UnreachableError: it cannot be opened or read.
    """
    pieces = []
    try:
      with self._lock:
        if self._file is None:
          self._file = os.open(self.path, os.O_RDONLY)
      while size:
        piece = os.pread(self._file, size, offset)
        if not piece:
          raise DamagedError(
            f'{self.path}: ends inside {name}; it was cut short'
          )
        pieces.append(piece)
        offset, size = offset + len(piece), size - len(piece)
    except OSError as error:
      raise files.unreachable(self.path, error.strerror) from error
    return b''.join(pieces)

  def __reduce__(self) -> Any:
    return Tar, (self.path,)

  def __del__(self):
    if self._file is not None:
      os.close(self._file)


def index(
  path: pathlib.Path, start: int = 0, size: int = 0, *, name: str = ''
) -> Index:
  """Returns the index of a tar, or of one inside a tar.

  Only the headers are read.

  Args:
    path: The tar.
    start: Where the inner tar begins.
    size: Its bytes; 0 is up to the end.
    name: Of the inner tar, for messages.

  Raises:
    UserError: the archive is missing, compressed or cut short, or one of its
      headers does not check out.
  """
  places: dict[str, tuple[int, int]] = {}
  try:
    end = start + size if size else os.path.getsize(path)
    with open(path, 'rb') as file:
      file.seek(start)
      with tarfile.TarFile(fileobj=file, mode='r') as archive:
        for member in archive:
          if member.offset >= end:
            break
          if member.size < 0:
            raise tarfile.ReadError(f'{member.name} has no size')
          if not member.isreg():
            continue
          if member.offset_data + member.size > end:
            raise tarfile.ReadError(f'{member.name} goes beyond the end')
          places[member.name.removeprefix('./')] = (
            member.offset_data,
            member.size,
          )
        else:
          _check_end(file, archive.offset, end)
  # The standard library's reader of a header raises all of these.
  except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
    what = f'{path}, {name}' if name else str(path)
    raise UserError(
      f'{what}: is not a whole, uncompressed tar ({error}); compare its size '
      'and checksum with the ones published'
    ) from error
  except OSError as error:
    raise files.unreachable(path, error.strerror) from error
  return Index.of(places)


def _check_end(file: BinaryIO, offset: int, end: int) -> None:
  """Checks that the headers ended because the files did.

  The standard library's reader takes a header that does not check out for the
  end, and says nothing about the files behind it.

  Raises:
    tarfile.ReadError: there is something else than the empty blocks that mark
      the end of a tar.
  """
  file.seek(offset)
  block = file.read(min(tarfile.BLOCKSIZE, max(end - offset, 0)))
  if any(block):
    raise tarfile.ReadError(f'the header at byte {offset} does not check out')
  if len(block) < tarfile.BLOCKSIZE:
    raise tarfile.ReadError('it ends without the mark of an end')


def nested(
  path: pathlib.Path,
  inner: Mapping[str, tuple[int, int]],
  folder: pathlib.Path,
) -> Index:
  """Returns the index of all files in the tars of a tar, '<folder>/<file>'.

  It is kept in a file, so that only the first start has to read a million
  headers all over the archive.

  Args:
    path: The outer tar.
    inner: Folder -> offset and size of its tar.
    folder: Where the file is kept; if nothing can be written there, the index
      is made each time.
  """
  state = path.stat()
  place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]
  name = f'{path.stem}-{place}-'
  kept = folder / f'{name}{state.st_size}-{state.st_mtime_ns}.npy'
  with contextlib.suppress(OSError, ValueError):
    return Index.load(kept)
  places: dict[str, tuple[int, int]] = {}
  what = f'Indexing {path}'
  for wnid in progress.lines(inner, len(inner), what):
    found = index(path, *inner[wnid], name=wnid)
    places |= {f'{wnid}/{file}': found[file] for file in found}
  made = Index.of(places)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f'{name}*.npy'):
      old.unlink(missing_ok=True)
    made.save(kept)
    return Index.load(kept)
  except OSError as error:
    logging.warning(
      'The index of %s cannot be kept in %s (%s): it is made again next time.',
      path,
      folder,
      error.strerror,
    )
  return made
