"""Checksums of a folder's files, as `sha256sum --check SHA256SUMS` reads them.

Orbax does not notice a changed byte among the numbers of an array.
"""

import hashlib
import pathlib

from pinpp_jax.data import files

FILE = 'SHA256SUMS'


def write(folder: pathlib.Path) -> None:
  """Writes the checksums of all files below a folder into it."""
  names = sorted(
    path.relative_to(folder).as_posix()
    for path in folder.rglob('*')
    if path.is_file() and path.name != FILE
  )
  lines = [f'{_digest(folder / name)}  {name}\n' for name in names]
  files.write(folder / FILE, ''.join(lines))


def damage(folder: pathlib.Path) -> str:
  """Returns what is wrong with the first missing or changed file.

  '' if there is none, and for a folder without checksums: its writer was killed
  before it wrote them, or did not write any.
  """
  if not (folder / FILE).is_file():
    return ''
  for line in (folder / FILE).read_text(errors='replace').splitlines():
    digest, _, name = line.partition('  ')
    path = folder / name
    if not name or not path.is_file():
      return f'{name or FILE} is missing'
    if _digest(path) != digest:
      return f'{name} has changed'
  return ''


def _digest(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
