"""Builds a data set without TensorFlow: the same bytes as `tfds build`.

pinpp build pinpp --manual_dir=DIR --imagenet_dir=DIR
pinpp build pinpp_mini
"""

import argparse
from collections.abc import Sequence
import json
import logging
import pathlib
import sys
from typing import Any

from pinpp_jax.data.build.run import build
from pinpp_jax.errors import UserError
from pinpp_jax.machine import data_folder

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
    prog='pinpp build',
    description='Builds a data set as ArrayRecord shards that TFDS reads.',
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = result.add_argument
  add('dataset', choices=('pinpp', 'pinpp_mini'))
  add('--data_dir', default='', help=data_folder.HELP)
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
    options.data_dir = options.data_dir or data_folder.default()
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
