"""Random access to the files in an uncompressed tar, without unpacking it."""

from collections.abc import Mapping
import os
import pathlib
import tarfile
from typing import Any

from pinpp_jax.errors import UserError


class Tar:
  """The index of a tar, or of a tar inside a tar: where each file's bytes lie.

  Only the headers are read, once. Pickles without its open file, so every
  process opens its own.

  Raises:
    UserError: the archive is missing, compressed or cut short.
  """

  def __init__(self, path: pathlib.Path, start: int = 0, end: int = 0):
    self.path = path
    self._file: int | None = None
    try:
      self._places = _index(path, start, end or os.path.getsize(path))
    except (OSError, tarfile.TarError) as error:
      raise UserError(
        f'{path}: is not a whole, uncompressed tar ({error}); compare its size '
        'and checksum with the ones published'
      ) from error

  @property
  def names(self) -> Mapping[str, tuple[int, int]]:
    """The names of the files, with offset and size in bytes."""
    return self._places

  def read(self, name: str) -> bytes:
    """Returns a file's bytes.

    Raises:
      UserError: the archive ends before the file does.
    """
    offset, size = self._places[name]
    if self._file is None:
      self._file = os.open(self.path, os.O_RDONLY)
    pieces = []
    while size:
      piece = os.pread(self._file, size, offset)
      if not piece:
        raise UserError(f'{self.path}: ends inside {name}; it was cut short')
      pieces.append(piece)
      offset, size = offset + len(piece), size - len(piece)
    return b''.join(pieces)

  def inner(self, name: str) -> 'Tar':
    """Returns the index of a tar that is a file of this one."""
    offset, size = self._places[name]
    return Tar(self.path, offset, offset + size)

  def __getstate__(self) -> dict[str, Any]:
    return dict(self.__dict__, _file=None)

  def __del__(self):
    file = getattr(self, '_file', None)
    if file is not None:
      os.close(file)


def _index(
  path: pathlib.Path, start: int, end: int
) -> dict[str, tuple[int, int]]:
  """Returns name -> (offset, size) of the files between two offsets."""
  places: dict[str, tuple[int, int]] = {}
  with open(path, 'rb') as file:
    file.seek(start)
    with tarfile.TarFile(fileobj=file, mode='r') as archive:
      for member in archive:
        if member.offset >= end:
          break
        if not member.isreg():
          continue
        if member.offset_data + member.size > end:
          raise tarfile.ReadError(f'{member.name} goes beyond the end')
        places[member.name.removeprefix('./')] = (
          member.offset_data,
          member.size,
        )
  return places
