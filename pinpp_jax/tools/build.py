"""Builds a data set without TensorFlow: the same bytes as `tfds build`.

python -m pinpp_jax.tools.build pinpp --manual_dir=DIR --imagenet_dir=DIR
python -m pinpp_jax.tools.build pinpp_mini
"""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import json
import logging
import os
import pathlib
import shutil
import sys
from typing import Any

from pinpp_jax.errors import UserError

_EPILOG = """\
The manual folder of pinpp holds the release (json/, including/,
category_name.json, discarded_data.json from
https://huggingface.co/datasets/lixiao20/PartImageNetPP) and, unless
--imagenet_dir names another place, an ImageNet copy: train/<wnid>/*.JPEG,
images/<wnid>/*.JPEG, ILSVRC/Data/CLS-LOC/train/ (Kaggle) or
ILSVRC2012_img_train.tar (not unpacked). splits/train.txt, splits/validation.txt
and splits/test.txt in it, one file name a line, replace the canonical split.

pinpp_mini is drawn by the program and needs nothing.
"""


def parser() -> argparse.ArgumentParser:
  """Returns the command line of this tool."""
  result = argparse.ArgumentParser(
    prog='python -m pinpp_jax.tools.build',
    description='Builds a data set as ArrayRecord shards that TFDS reads.',
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = result.add_argument
  add('dataset', choices=('pinpp', 'pinpp_mini'))
  add(
    '--data_dir',
    default=os.environ.get('TFDS_DATA_DIR', '~/tensorflow_datasets'),
    help='where built data sets lie (default: %(default)s)',
  )
  add(
    '--manual_dir',
    default='',
    help='the release; default: <data_dir>/downloads/manual/<dataset>',
  )
  add(
    '--imagenet_dir',
    default='',
    help='the ImageNet copy, a folder or ILSVRC2012_img_train.tar; default: '
    'PINPP_IMAGENET_DIR, or the manual folder',
  )
  add(
    '--skip_bad',
    action='store_true',
    help='leave broken entries and missing images out and count them, instead '
    'of stopping at the first',
  )
  add(
    '--overwrite',
    action='store_true',
    help='build again although the data set is there',
  )
  return result


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

  from pinpp_jax.data import builder as builders

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
  """Keeps what is in a folder until its successor is whole."""
  old = folder.with_name(f'{folder.name}.replaced')
  if old.exists() and not folder.exists():
    old.rename(folder)  # a build was killed here
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
  """Refuses a missing or empty manual folder in our own words."""
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
  """Removes folders a failed build has made, as far as nothing is in them."""
  for folder in sorted(folders, key=lambda path: -len(path.parts)):
    if not folder.is_dir():
      continue
    for inner in ('extracted', 'manual'):
      if (folder / inner).is_dir() and not any((folder / inner).iterdir()):
        (folder / inner).rmdir()
    if not any(folder.iterdir()):
      folder.rmdir()


def summary(folder: pathlib.Path) -> list[str]:
  """Returns what a build says at its end, a line each."""
  facts = json.loads((folder / 'metadata.json').read_text())
  size = sum(path.stat().st_size for path in folder.glob('*.array_record*'))
  parts: dict[str, Any] = facts['splits']
  counts = ', '.join(f'{name} {count}' for name, count in parts.items())
  lines = [
    f'built {folder} ({size / 2**20:.1f} MiB)',
    f'{facts["classes"]} classes, {facts["parts"]} parts, {facts["masks"]} '
    f'masks on {facts["images"]} images: {counts}',
    f'split {facts["split_rule"]}, hash {facts["split_hash"][:16]}',
  ]
  findings = facts['findings']
  for title in ('counted', 'warnings', 'skipped'):
    for kind, amount in findings[title].items():
      lines.append(f'{title}: {amount} x {kind}')
      examples = findings['examples'].get(kind, [])
      lines += [f'    {where}' for where in examples[:3]]
  if not findings['skipped']:
    lines.append('skipped: nothing')
  return lines


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the tool; returns 0, or 2 after a user's mistake."""
  options = parser().parse_args(arguments)
  said = logging.getLogger('absl')
  level = said.level
  said.setLevel(logging.WARNING)
  try:
    folder = build(**vars(options))
  except UserError as error:
    print(f'build: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('build: stopped; nothing was left behind', file=sys.stderr)
    return 130
  finally:
    said.setLevel(level)
  print('\n'.join(summary(folder)))
  return 0


if __name__ == '__main__':
  sys.exit(main())
