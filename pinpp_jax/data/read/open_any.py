"""Opens what a user names: a release, built data set, run or label table."""

import os
import pathlib

from pinpp_jax.data import labels
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read import sources
from pinpp_jax.data.release.findings import Findings
from pinpp_jax.data.release.reader import Release
from pinpp_jax.errors import UserError


def is_release(source: str | os.PathLike[str]) -> bool:
  """Whether a folder has the layout of the release."""
  return (pathlib.Path(source).expanduser() / 'json').is_dir()


def data_set(source: str, data_dir: str = '') -> pathlib.Path:
  """Returns the folder of a built data set's newest version.

  Args:
    source: its name, the folder of one version, or the folder above it.
    data_dir: the folder of built data sets; if empty, see
      `sources.data_folder`.

  Raises:
    UserError: no built data set is there.
  """
  folder = pathlib.Path(source).expanduser()
  if folder.is_dir() and list(folder.glob('*/dataset_info.json')):
    return sources.dataset_folder(folder.resolve().name, str(folder.parent))
  return sources.dataset_folder(source, data_dir)


def label_table(source: str, data_dir: str = '') -> LabelTable:
  """Returns the label table of a file, run, data set or release.

  Args:
    source: a labels.json; the folder of a run; a built data set, see
      `data_set`; or a release folder, whose broken entries are skipped.
    data_dir: the folder of built data sets.

  Raises:
    UserError: no label table was found.
  """
  path = pathlib.Path(source).expanduser()
  if path.is_file():
    return LabelTable.load(path)
  if (path / 'labels.json').is_file():
    return LabelTable.load(path / 'labels.json')
  if is_release(path):
    return labels.from_classes(Release(path, Findings(skip_bad=True)))
  try:
    folder = data_set(source, data_dir)
  except UserError as error:
    if not path.is_dir():
      if '/' not in source:
        raise
      raise UserError(f'{path} does not exist.') from error
    raise UserError(
      f'{path} has no label table: it is neither a data set or a run (there is '
      'no labels.json) nor a release (there is no json/).'
    ) from error
  if not (folder / 'labels.json').is_file():
    raise UserError(
      f'{folder} has no labels.json: its build did not finish. Delete the '
      'folder and build it again.'
    )
  return LabelTable.load(folder / 'labels.json')
