"""Files that are either whole or not there, and why one cannot be read."""

import errno
import json
import os
import pathlib
import stat
from typing import Any

from pinpp_jax.errors import UnreachableError

_FULL = [os.strerror(number) for number in (errno.EMFILE, errno.ENFILE)]


def write(path: str | os.PathLike[str], content: str | bytes) -> pathlib.Path:
  """Writes through a temporary neighbour, so no half file is ever seen."""
  target = pathlib.Path(path)
  data = content.encode() if isinstance(content, str) else content
  temporary = target.with_name(f'.{target.name}.{os.getpid()}.tmp')
  try:
    with open(temporary, 'wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, target)
  finally:
    temporary.unlink(missing_ok=True)
  return target


def read(path: str | os.PathLike[str]) -> bytes:
  """Returns a regular file's bytes; anything else could wait for ever.

  Raises:
    OSError: it cannot be read, or it is a pipe, a socket or a device.
  """
  # A pipe without a writer would stop open itself.
  handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
  with open(handle, 'rb') as file:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
      raise OSError(errno.EINVAL, 'it is no regular file', str(path))
    return file.read()


def write_json(path: str | os.PathLike[str], value: Any) -> None:
  """Writes a value as JSON in the same way."""
  write(path, json.dumps(value, indent=1, ensure_ascii=False) + '\n')


def unreachable(
  path: str | os.PathLike[str], reason: str | None
) -> UnreachableError:
  """Returns the error of a file that the system does not give.

  Args:
    path: The file.
    reason: In the system's words, as `OSError.strerror` has it.
  """
  way = (
    'Let the process hold more: ulimit -Sn $(ulimit -Hn).'
    if reason in _FULL
    else 'Is its disk mounted, and may you read it?'
  )
  return UnreachableError(
    f'{path} cannot be read now ({reason}); this is no damage. {way}'
  )
