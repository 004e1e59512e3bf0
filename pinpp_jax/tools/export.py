"""Writes a built data set in a form that other software reads.

pinpp export coco pinpp --output=coco --kind=both --lvis
pinpp export parquet pinpp pinpp_pseudo --output=parquet
"""

import argparse
from collections.abc import Iterable, Sequence
import pathlib
import sys

import tqdm

from pinpp_jax import exports
from pinpp_jax.data.read.annotated import AnnotatedImage, DataSet
from pinpp_jax.errors import UserError
from pinpp_jax.exports import coco
from pinpp_jax.machine import data_folder
from pinpp_jax.tools import terminal

# format -> what it is.
_FORMATS = {
  'coco': 'COCO or LVIS: a JSON file per split, as the parts were drawn',
  'concepts': 'JSON lines: what is where in an image, in names without class',
  'parquet': "for Hugging Face's datasets: painted masks and what was drawn",
  'reference': "the layout of the reference's code: 16-bit masks, images",
  'webdataset': 'tar shards of images, painted masks and what was drawn',
}
_EPILOG = """\
Several data sets (pinpp pinpp_pseudo) become one. COCO, Parquet and JSON lines
name images and do not contain them; the others do. docs/export.md says which
format is for whom, and what a mask means in it.
"""


def parser() -> argparse.ArgumentParser:
  """Returns the command line of this tool."""
  result = argparse.ArgumentParser(
    prog='pinpp export',
    description='Writes a built data set in a form that other software reads.',
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  forms = result.add_subparsers(
    dest='form', required=True, metavar='FORMAT', title='formats'
  )
  words = {}
  for name, purpose in _FORMATS.items():
    words[name] = form = forms.add_parser(
      name, help=purpose, description=f'{purpose}.'
    )
    add = form.add_argument
    add('dataset', nargs='+', help='built data sets (names or folders)')
    add('--output', required=True, metavar='FOLDER', help='a new folder')
    add('--splits', default='', help='such as train,validation; default: all')
    add('--data_dir', default='', help=data_folder.HELP)
  words['coco'].add_argument(
    '--kind',
    choices=coco.KINDS,
    default='parts',
    help='what is an instance; an object is the union of its parts '
    '(default: %(default)s)',
  )
  words['coco'].add_argument(
    '--lvis',
    action='store_true',
    help="with LVIS's fields: frequency, neg_category_ids and the like",
  )
  words['reference'].add_argument(
    '--masks_only', action='store_true', help='without the images'
  )
  words['webdataset'].add_argument(
    '--shard_mb',
    type=int,
    default=500,
    help='size of a shard in 10^6 bytes (default: %(default)s)',
  )
  return result


def _bar(
  images: Iterable[AnnotatedImage], count: int, split: str
) -> Iterable[AnnotatedImage]:
  title = f'Writing {split}'
  return tqdm.tqdm(
    images, total=count, desc=title, unit=' images', disable=None
  )


def summary(folder: pathlib.Path) -> str:
  """Returns what was written, for the terminal."""
  paths = [path for path in folder.rglob('*') if path.is_file()]
  size = sum(path.stat().st_size for path in paths)
  return f'wrote {folder}: {len(paths):,} files, {size / 2**20:,.1f} MiB'


def main(arguments: Sequence[str] | None = None) -> int:
  """Writes the export; returns 0, or 2 after a user's mistake."""
  options = vars(parser().parse_args(arguments))
  form, names = options.pop('form'), options.pop('dataset')
  output, data_dir = options.pop('output'), options.pop('data_dir')
  splits = [name for name in options.pop('splits').split(',') if name]
  try:
    folder = exports.export(
      form,
      DataSet(names, data_dir),
      output,
      splits=splits,
      progress=_bar,
      **options,
    )
  except (UserError, OSError) as error:
    print(f'pinpp export: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('pinpp export: stopped; nothing was left behind', file=sys.stderr)
    return 130
  terminal.show(summary(folder))
  return 0


if __name__ == '__main__':
  sys.exit(main())
