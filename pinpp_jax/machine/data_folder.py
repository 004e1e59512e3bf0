"""Where built data sets lie if nobody says so."""

import functools
import os
import pathlib
import sys

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
# That of TFDS.
USUAL = pathlib.Path('~/tensorflow_datasets').expanduser()
HELP = (
  'where built data sets lie; default: $TFDS_DATA_DIR, else data/ of the'
  ' checkout, else ~/tensorflow_datasets'
)


def default(checkout: pathlib.Path = CHECKOUT) -> pathlib.Path:
  """Returns the folder of built data sets.

  That is the environment variable TFDS_DATA_DIR; else the folder `data` of the
  checkout that this code runs from, which `./launch.sh mini` makes; else
  ~/tensorflow_datasets, as in TFDS. One line on stderr names the second one.

  Args:
    checkout: The folder that holds the package.
  """
  chosen = os.environ.get('TFDS_DATA_DIR')
  if chosen:
    return pathlib.Path(chosen).expanduser()
  folder = checkout / 'data'
  if (checkout / 'pyproject.toml').is_file() and folder.is_dir():
    _say(folder)
    return folder
  return USUAL


@functools.cache
def _say(folder: pathlib.Path) -> None:
  print(
    f'Data sets: {folder} (TFDS_DATA_DIR names another folder).',
    file=sys.stderr,
  )
