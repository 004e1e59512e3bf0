"""The classes of ImageNet's validation images, from whichever file there is."""

import csv
import io
import os
import pathlib
import re
import tarfile

from pinpp_jax.errors import UserError

_TRUTH = 'ILSVRC2012_validation_ground_truth.txt'
_KAGGLE = 'LOC_val_solution.csv'
_SYNSETS = ('synsets.txt', 'imagenet_lsvrc_2015_synsets.txt')
_PAIRS = ('val_labels.txt', 'val.txt', 'validation.txt', 'labels.txt')
_DEVKITS = ('', 'ILSVRC2012_devkit_t12/data', 'devkit/data', 'data')
_DEVKIT_TAR = 'ILSVRC2012_devkit_t12.tar.gz'
_WNID = re.compile(r'n\d{8}')


def find(*folders: pathlib.Path) -> dict[str, str]:
  """Returns image stem -> wnid from the first label file found.

  Accepted, in this order: Kaggle's LOC_val_solution.csv; the official
  ILSVRC2012_validation_ground_truth.txt with the devkit's meta.mat or a list
  of synsets in the devkit's order (synsets.txt), also inside
  ILSVRC2012_devkit_t12.tar.gz; a text file of "file wnid" lines
  (val_labels.txt).

  Raises:
    UserError: none is there, or one is broken.
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
  places = ', '.join(str(folder) for folder in folders)
  raise UserError(
    f'no labels of the validation images in {places}: put {_KAGGLE}, '
    f'{_DEVKIT_TAR} or a text file {_PAIRS[0]} of "file wnid" lines there'
  )


def _kaggle(path: pathlib.Path) -> dict[str, str]:
  """Reads rows `ImageId,PredictionString`, the wnid its first word."""
  with open(path, newline='', encoding='utf-8') as file:
    rows = list(csv.reader(file))[1:]
  return _checked({row[0]: row[1].split()[0] for row in rows if row}, path)


def _pairs(path: pathlib.Path) -> dict[str, str]:
  lines = [line.split() for line in path.read_text().splitlines()]
  words = [line for line in lines if line]
  if any(len(line) != 2 for line in words):
    raise UserError(f'{path}: every line must be "file wnid"')
  stems = {pathlib.PurePosixPath(name).stem: wnid for name, wnid in words}
  return _checked(stems, path)


def _official(devkit: pathlib.Path) -> dict[str, str]:
  for name in _SYNSETS:
    if (devkit / name).is_file():
      lines = (devkit / name).read_text().splitlines()
      synsets = [line.split()[0] for line in lines if line.strip()]
      break
  else:
    if not (devkit / 'meta.mat').is_file():
      raise UserError(
        f"{devkit / _TRUTH}: its numbers need the devkit's meta.mat or a "
        f"{_SYNSETS[0]} in the devkit's order beside it"
      )
    synsets = _meta((devkit / 'meta.mat').read_bytes(), devkit / 'meta.mat')
  return _numbered((devkit / _TRUTH).read_text(), synsets, devkit / _TRUTH)


def _devkit_tar(path: pathlib.Path) -> dict[str, str]:
  found: dict[str, bytes] = {}
  with tarfile.open(path) as archive:
    for member in archive:
      base = os.path.basename(member.name)
      stream = archive.extractfile(member)
      if base in (_TRUTH, 'meta.mat') and stream:
        found[base] = stream.read()
  if len(found) < 2:
    raise UserError(f'{path}: lacks {_TRUTH} or meta.mat')
  return _numbered(found[_TRUTH].decode(), _meta(found['meta.mat'], path), path)


def _meta(data: bytes, path: pathlib.Path) -> list[str]:
  """Returns the wnids in the order of ILSVRC2012_ID from a meta.mat."""
  from scipy import io as scipy_io  # only this one format needs it

  try:
    synsets = scipy_io.loadmat(io.BytesIO(data), squeeze_me=True)['synsets']
    pairs = [(int(s['ILSVRC2012_ID']), str(s['WNID'])) for s in synsets]
  except (KeyError, IndexError, TypeError, ValueError) as error:
    raise UserError(f"{path}: is not the devkit's meta.mat") from error
  return [wnid for number, wnid in sorted(pairs) if 1 <= number <= 1000]


def _numbered(
  text: str, synsets: list[str], path: pathlib.Path
) -> dict[str, str]:
  """Joins the official numbers, one a line from image 1, with the synsets."""
  numbers = [int(line) for line in text.split()]
  if min(numbers, default=0) < 1 or max(numbers, default=0) > len(synsets):
    raise UserError(f'{path}: numbers must be 1..{len(synsets)}')
  return _checked(
    {
      f'ILSVRC2012_val_{i:08d}': synsets[number - 1]
      for i, number in enumerate(numbers, 1)
    },
    path,
  )


def _checked(wnid_of: dict[str, str], path: pathlib.Path) -> dict[str, str]:
  for stem, wnid in wnid_of.items():
    if not _WNID.fullmatch(wnid):
      raise UserError(f'{path}: the class of {stem} is {wnid!r}, not a wnid')
  if not wnid_of:
    raise UserError(f'{path}: is empty')
  return wnid_of
