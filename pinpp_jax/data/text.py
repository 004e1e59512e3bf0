"""Text files as people have them: every reader of one goes through here.

UTF-8 with or without a byte-order mark, UTF-16 and UTF-32 with one, any line
endings.
"""

import codecs
import json
import os
import re
from typing import Any
import unicodedata

from pinpp_jax.data import files
from pinpp_jax.errors import UserError

# The longer ones first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
  codecs.BOM_UTF8: 'utf-8-sig',
  codecs.BOM_UTF32_LE: 'utf-32',
  codecs.BOM_UTF32_BE: 'utf-32',
  codecs.BOM_UTF16_LE: 'utf-16',
  codecs.BOM_UTF16_BE: 'utf-16',
}
_POINTER = b'version https://git-lfs.github.com/spec/'
_SURROGATE = re.compile(r'\\u[dD][89a-fA-F]')


def read(path: str | os.PathLike[str]) -> str:
  """Returns a file's text, without a byte-order mark, lines ended by '\\n'.

  Raises:
    UserError: the file cannot be read, is a Git LFS pointer or is no text; the
      message names the line.
  """
  try:
    data = files.read(path)
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror})') from error
  return decode(data, path)


def decode(data: bytes, name: str | os.PathLike[str]) -> str:
  """Returns the text in bytes; `name` is that of their file.

  Raises:
    UserError: as `read`.
  """
  refuse_pointer(data, name)
  encoding = next((e for m, e in _MARKS.items() if data.startswith(m)), 'utf-8')
  try:
    found = data.decode(encoding)
  except UnicodeDecodeError as error:
    line = data.count(b'\n', 0, error.start) + 1
    raise UserError(
      f'{name}, line {line}: is not UTF-8 text ({error.reason}); save the file '
      'as UTF-8'
    ) from error
  return found.replace('\r\n', '\n').replace('\r', '\n')


def lines(path: str | os.PathLike[str]) -> list[tuple[int, str]]:
  """Returns (number from 1, line) of a file, without those that are empty.

  Raises:
    UserError: as `read`.
  """
  return numbered(read(path))


def numbered(content: str) -> list[tuple[int, str]]:
  """Returns (number from 1, stripped line), without those that are empty."""
  every = enumerate(content.split('\n'), 1)
  return [(number, line.strip()) for number, line in every if line.strip()]


def read_json(path: str | os.PathLike[str]) -> Any:
  """Returns a JSON file's content.

  Raises:
    UserError: as `read`, or it is not JSON, or has text that no file can hold
      (half of a surrogate pair).
  """
  content = read(path)
  try:
    value = json.loads(content)
    if _SURROGATE.search(content):
      json.dumps(value, ensure_ascii=False).encode()
  except UnicodeEncodeError as error:
    half = error.object[error.start]
    raise UserError(
      f'{path}: holds half of a surrogate pair ({half!r}), which is no text'
    ) from error
  except (ValueError, RecursionError) as error:
    raise UserError(
      f'{path}: is not valid JSON ({error}); was the download cut short?'
    ) from error
  return value


def refuse_pointer(data: bytes, name: str | os.PathLike[str]) -> None:
  """Raises UserError if a file is what Git leaves in place of a large one."""
  if data.startswith(_POINTER):
    raise UserError(
      f'{name}: is a Git LFS pointer, not the file itself; fetch it with '
      'git lfs pull'
    )


def shown(name: str) -> str:
  """Returns a name for a message that is about how names differ."""
  short = name if len(name) <= 60 else f'{name[:60]}...'
  if short.isascii():
    return repr(short)
  return f'{short!r} (that is {ascii(short)})'


def same(name: str) -> str:
  """Returns the form in which names are compared: Unicode's NFC.

  What looks the same is the same, whichever system wrote the file.
  """
  return unicodedata.normalize('NFC', name)
