"""Builds a data set without TensorFlow: the same bytes as `tfds build`."""

from collections.abc import Iterator, Sequence
import contextlib
import os
import pathlib
import shutil

from pinpp_jax.errors import UserError


def build(
  dataset: str,
  data_dir: str | os.PathLike[str],
  *,
  manual_dir: str | os.PathLike[str] = '',
  imagenet_dir: str = '',
  skip_bad: bool = False,
  overwrite: bool = False,
) -> pathlib.Path:
  """Builds a data set and returns its version folder.

  Raises:
    UserError: something is missing or broken; then nothing is left behind.
  """
  import tensorflow_datasets as tfds  # slow to import: not for --help

  from pinpp_jax.data.build import builder as builders

  root = pathlib.Path(data_dir).expanduser().resolve()
  manual = pathlib.Path(manual_dir or root / 'downloads' / 'manual' / dataset)
  manual = manual.expanduser().resolve()
  if dataset == 'pinpp':
    _check_manual(manual)
  elif manual_dir or imagenet_dir:
    raise UserError(
      f'{dataset} is drawn by the program: leave out --manual_dir '
      'and --imagenet_dir'
    )
  folder = root / dataset / builders.RELEASE
  if (folder / 'dataset_info.json').exists() and not overwrite:
    raise UserError(
      f'{folder} is already built. Pass --overwrite to build it again.'
    )
  made = _missing_folders(root / dataset) + _missing_folders(root / 'downloads')
  try:
    with _set_aside(folder):
      maker = builders.BUILDERS[dataset](
        data_dir=root, imagenet_dir=imagenet_dir, skip_bad=skip_bad
      )
      maker.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual)
      )
  except OSError as error:
    raise UserError(f'the build in {root} failed: {error}') from error
  finally:
    _remove_empty(made)
  return folder


@contextlib.contextmanager
def _set_aside(folder: pathlib.Path) -> Iterator[None]:
  """Moves a built version aside; deletes it once the new one is complete."""
  old = folder.with_name(f'{folder.name}.replaced')
  if old.exists() and not folder.exists():
    old.rename(folder)  # an earlier build was killed
  if folder.exists():
    folder.rename(old)
  try:
    yield
  except BaseException:
    if old.exists():
      old.rename(folder)
    raise
  if old.exists():
    shutil.rmtree(old)


def _check_manual(manual: pathlib.Path) -> None:
  """Raises UserError if the manual folder is missing or empty."""
  if not manual.is_dir() or not any(manual.iterdir()):
    state = 'is empty' if manual.is_dir() else 'does not exist'
    raise UserError(
      f'the manual folder {manual} {state}. Put the PartImageNet++ release '
      'there (json/, including/, category_name.json from '
      'https://huggingface.co/datasets/lixiao20/PartImageNetPP) with your '
      'ImageNet copy, or name its place with --manual_dir.'
    )


def _missing_folders(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns a folder and those above it that do not exist, deepest first."""
  chain = [folder, *folder.parents]
  return [path for path in chain if not path.exists()]


def _remove_empty(folders: Sequence[pathlib.Path]) -> None:
  """Removes the folders that a failed build has made, if they are empty."""
  for folder in sorted(folders, key=lambda path: -len(path.parts)):
    if not folder.is_dir():
      continue
    for inner in ('extracted', 'manual'):
      if (folder / inner).is_dir() and not any((folder / inner).iterdir()):
        (folder / inner).rmdir()
    if not any(folder.iterdir()):
      folder.rmdir()
