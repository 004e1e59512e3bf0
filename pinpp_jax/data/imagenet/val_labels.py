"""The classes of ImageNet's validation images, from whichever file there is."""

from collections.abc import Sequence
import io
import os
import pathlib
import re
import tarfile
import zlib

from pinpp_jax.data import text
from pinpp_jax.errors import UserError

_TRUTH = 'ILSVRC2012_validation_ground_truth.txt'
_KAGGLE = 'LOC_val_solution.csv'
_SYNSETS = ('synsets.txt', 'imagenet_lsvrc_2015_synsets.txt')
_PAIRS = ('val_labels.txt', 'val.txt', 'validation.txt', 'labels.txt')
_DEVKITS = ('', 'ILSVRC2012_devkit_t12/data', 'devkit/data', 'data')
_DEVKIT_TAR = 'ILSVRC2012_devkit_t12.tar.gz'
_WNID = re.compile(r'n[0-9]{8}')
_LARGEST = 1 << 26  # Bytes read of one file: meta.mat has less than a MiB.


def find(*folders: pathlib.Path) -> dict[str, str] | None:
  """Returns image stem -> wnid from the first label file found.

  Accepted, in this order: Kaggle's LOC_val_solution.csv; the official
  ILSVRC2012_validation_ground_truth.txt with the devkit's meta.mat or a list
  of synsets in the devkit's order (synsets.txt), also inside
  ILSVRC2012_devkit_t12.tar.gz; a text file of "file wnid" lines
  (val_labels.txt).

  Returns:
    None if none is there.

  Raises:
    UserError: one is broken; names it, and the line.
  """
  for folder in folders:
    if (folder / _KAGGLE).is_file():
      return _kaggle(folder / _KAGGLE)
    for devkit in (folder / name for name in _DEVKITS):
      if (devkit / _TRUTH).is_file():
        return _official(devkit)
    if (folder / _DEVKIT_TAR).is_file():
      return _devkit_tar(folder / _DEVKIT_TAR)
    for path in (folder / name for name in _PAIRS):
      if path.is_file():
        return _pairs(path)
  return None


def absent(*folders: pathlib.Path) -> UserError:
  """Returns the error of validation images of which no class is known."""
  places = ', '.join(str(folder) for folder in folders)
  return UserError(
    f'no labels of the validation images in {places}: put {_KAGGLE}, '
    f'{_DEVKIT_TAR} or a text file {_PAIRS[0]} of "file wnid" lines there'
  )


def _kaggle(path: pathlib.Path) -> dict[str, str]:
  """Reads rows `ImageId,PredictionString`, the wnid its first word."""
  rows = []
  for number, line in text.lines(path):
    if number == 1 and not _WNID.search(line):
      continue  # The names of the columns.
    stem, _, words = line.replace('"', '').partition(',')
    rows.append((number, stem.strip(), words.split()[:1]))
  return _checked(rows, path)


def _pairs(path: pathlib.Path) -> dict[str, str]:
  rows = []
  for number, line in text.lines(path):
    words = line.replace(',', ' ').split()
    if not rows and not any(_WNID.fullmatch(word) for word in words):
      continue  # The names of the columns.
    if len(words) != 2:
      raise UserError(f'{path}, line {number}: must be "file wnid"')
    rows.append((number, pathlib.PurePosixPath(words[0]).stem, words[1:]))
  return _checked(rows, path)


def _official(devkit: pathlib.Path) -> dict[str, str]:
  path = devkit / _TRUTH
  for name in _SYNSETS:
    if (devkit / name).is_file():
      lines = text.lines(devkit / name)
      synsets = [line.split()[0] for _, line in lines]
      break
  else:
    if not (devkit / 'meta.mat').is_file():
      raise UserError(
        f"{path}: its numbers need the devkit's meta.mat or a {_SYNSETS[0]} in "
        "the devkit's order beside it"
      )
    synsets = _meta((devkit / 'meta.mat').read_bytes(), devkit / 'meta.mat')
  return _numbered(text.read(path), synsets, path)


def _devkit_tar(path: pathlib.Path) -> dict[str, str]:
  found: dict[str, bytes] = {}
  try:
    with tarfile.open(path) as archive:
      for member in archive:
        base = os.path.basename(member.name)
        stream = archive.extractfile(member) if member.isreg() else None
        if base in (_TRUTH, 'meta.mat') and stream:
          found[base] = stream.read(_LARGEST)
  # A damaged archive raises what its compression does.
  except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
    reason = str(error).partition('\n')[0].rstrip(':')
    raise UserError(
      f'{path}: is damaged or cut short ({reason}). Fetch it again, or take it '
      'away: only validation images need it.'
    ) from error
  if len(found) < 2:
    raise UserError(f'{path}: lacks {_TRUTH} or meta.mat')
  truth = text.decode(found[_TRUTH], f'{path}, {_TRUTH}')
  return _numbered(truth, _meta(found['meta.mat'], path), path)


def _meta(data: bytes, path: pathlib.Path) -> list[str]:
  """Returns the wnids in the order of ILSVRC2012_ID from a meta.mat."""
  from scipy import io as scipy_io  # only this one format needs it

  try:
    synsets = scipy_io.loadmat(io.BytesIO(data), squeeze_me=True)['synsets']
    pairs = [(int(s['ILSVRC2012_ID']), str(s['WNID'])) for s in synsets]
  # Scipy's reader of a damaged file raises whatever its parser stumbles over.
  except Exception as error:
    raise UserError(f"{path}: is not the devkit's meta.mat") from error
  return [wnid for number, wnid in sorted(pairs) if 1 <= number <= 1000]


def _numbered(
  content: str, synsets: list[str], path: pathlib.Path
) -> dict[str, str]:
  """Joins the official numbers, one a line from image 1, with the synsets."""
  rows = []
  for image, (number, line) in enumerate(text.numbered(content), 1):
    # So short that int() of hostile text takes no time.
    if not re.fullmatch(r'[0-9]{1,9}', line) or not (
      1 <= int(line) <= len(synsets)
    ):
      raise UserError(
        f'{path}, line {number}: numbers must be 1..{len(synsets)}, not '
        f'{line[:40]!r}'
      )
    wnid = synsets[int(line) - 1]
    rows.append((number, f'ILSVRC2012_val_{image:08d}', [wnid]))
  return _checked(rows, path)


def _checked(
  rows: Sequence[tuple[int, str, Sequence[str]]], path: pathlib.Path
) -> dict[str, str]:
  """Returns stem -> wnid of rows (line, stem, wnid or nothing)."""
  wnid_of: dict[str, str] = {}
  for number, stem, words in rows:
    wnid = words[0] if words else ''
    if not stem or not _WNID.fullmatch(wnid):
      raise UserError(
        f'{path}, line {number}: the class of {stem[:60]} is {wnid[:60]!r}, '
        'not a wnid'
      )
    if wnid_of.setdefault(stem, wnid) != wnid:
      raise UserError(
        f'{path}, line {number}: {stem[:60]} is {wnid} here and '
        f'{wnid_of[stem]} above'
      )
  if not wnid_of:
    raise UserError(f'{path}: is empty')
  return wnid_of
