"""A local web page over images and their part masks.

pinpp view pinpp_mini
pinpp view RELEASE --imagenet_dir=IMAGENET
pinpp view runs/mpm-mini --output=FOLDER
"""

import argparse
from collections.abc import Iterable, Sequence
import contextlib
import pathlib
import sys
from typing import Any
import urllib.parse
import webbrowser

import tqdm

from pinpp_jax.errors import UserError
from pinpp_jax.machine import data_folder
from pinpp_jax.tools import terminal
from pinpp_jax.viewer import open_catalogue, publish, query, server
from pinpp_jax.viewer.catalogue import Catalogue

PORT = 8642
_EPILOG = """\
The page is for this machine alone: it listens on 127.0.0.1. To see it from
another one: ssh -L 8642:127.0.0.1:8642 HOST. What is shown is in its address;
--select takes what stands there after '#'. The first use of a filter by part,
confidence or origin reads the data set once; what it found is kept in
~/.cache/pinpp_jax/view (XDG_CACHE_HOME).
"""


def parser() -> argparse.ArgumentParser:
  """Returns the command line of this tool."""
  result = argparse.ArgumentParser(
    prog='pinpp view',
    description='Shows images and their part masks as a local web page.',
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = result.add_argument
  add(
    'source',
    help='a built data set (name or folder), a release, or a run',
  )
  add('--data_dir', default='', help=data_folder.HELP)
  add(
    '--imagenet_dir',
    default='',
    help='the images of a release, if they are not in it',
  )
  add(
    '--truth',
    default='',
    metavar='FOLDER',
    help='true masks <wnid>/<stem>.png, to compare pseudo labels with',
  )
  add('--port', type=int, default=PORT, help=f'{PORT}; 0 is any free one')
  add('--open', action='store_true', help='open it in the browser')
  add(
    '--output',
    metavar='FOLDER',
    help='write the page with some images there, instead of serving it',
  )
  add(
    '--images',
    type=int,
    default=query.PAGE,
    metavar='N',
    help=f'how many images to write, {query.PAGE} by default',
  )
  add(
    '--select',
    default='',
    metavar='FILTERS',
    help="which images to write, such as 'class=n02219486&split=test'",
  )
  return result


def chosen(catalogue: Catalogue, words: str) -> query.Query:
  """Returns what an address of the page asks for, after its '#'.

  Raises:
    UserError: it cannot be read.
  """
  fields = urllib.parse.parse_qs(words.removeprefix('#'))
  asked = {k: v for k, v in fields.items() if k in query.FIELDS}
  odd = sorted(set(fields) - set(asked) - set(query.SHOWN))
  if odd or (words and not fields):
    raise UserError(
      f'--select={words!r}: {", ".join(odd) or "this"} is no filter'
    )
  return query.parse(asked, catalogue.labels, catalogue.splits)


def _bar(steps: Sequence[Any]) -> Iterable[Any]:
  return tqdm.tqdm(steps, desc='Reading', disable=None)


def serve(catalogue: Catalogue, port: int, browser: bool) -> None:
  """Shows a catalogue until it is stopped."""
  with (
    contextlib.closing(catalogue),
    server.open_server(catalogue, port) as opened,
  ):
    address = f'http://{server.HOST}:{opened.server_address[1]}/'
    terminal.show(f'{catalogue.title}: {len(catalogue.rows):,} images')
    terminal.show(f'{address}   (Ctrl-C ends it)')
    if browser:
      webbrowser.open(address)
    opened.serve_forever()


def main(arguments: Sequence[str] | None = None) -> int:
  """Shows or writes the page; returns 0 or 2."""
  options = parser().parse_args(arguments)
  try:
    if options.images < 1:
      raise UserError('--images must be 1 or more')
    catalogue = open_catalogue.open_catalogue(
      options.source,
      data_dir=options.data_dir,
      imagenet_dir=options.imagenet_dir,
      truth=options.truth,
      progress=_bar,
    )
    if options.output:
      output = pathlib.Path(options.output).expanduser()
      asked = chosen(catalogue, options.select)
      number = publish.publish(catalogue, output, asked, options.images, _bar)
      terminal.show(f'wrote {output / "index.html"}: {number:,} images')
    else:
      serve(catalogue, options.port, options.open)
  except (UserError, OSError, OverflowError) as error:
    print(f'pinpp view: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    return 0
  return 0


if __name__ == '__main__':
  sys.exit(main())
