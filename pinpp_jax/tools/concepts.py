"""Scores heat maps against the part masks of concepts.

pinpp concepts HEATMAPS --dataset=pinpp --split=test
"""

import argparse
from collections.abc import Iterator, Sequence
import dataclasses
import pathlib
import sys
from typing import Any

import numpy as np
import tqdm

from pinpp_jax import heatmaps
from pinpp_jax.data import files
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read.annotated import AnnotatedImage, DataSet
from pinpp_jax.data.release import concepts
from pinpp_jax.errors import UserError
from pinpp_jax.exports import outlines
from pinpp_jax.heatmaps import Scores, Tally
from pinpp_jax.machine import data_folder
from pinpp_jax.tools import columns, terminal

NAMES = 'concepts.txt'

_EPILOG = """\
HEATMAPS holds concepts.txt, a name a line (`pinpp labels DATASET --concepts`
lists them; any spelling will do), and for every image <wnid>/<stem>.npy of
shape (concepts, height, width) in the order of these names. Maps may have any
size and are resized to the image. The mask of a concept is the union of its
parts as they were drawn. A concept without annotation in an image counts as
absent from it.

pointing: is the largest value inside? mass: which share of the positive values
is inside? IoU@t: of the mask and what reaches the share t between the smallest
and the largest value. pixel AP: average precision over the image's pixels; all
four are means over the images with the concept. presence AP: average precision
of the largest value over all images. Definitions to the letter:
pinpp_jax/heatmaps.py.
"""


def parser() -> argparse.ArgumentParser:
  """Returns the command line of this tool."""
  result = argparse.ArgumentParser(
    prog='pinpp concepts',
    description='Scores heat maps against the part masks of concepts.',
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = result.add_argument
  add('heatmaps', help='the folder of heat maps')
  add(
    '--dataset', default='pinpp', help='built data set (default: %(default)s)'
  )
  add('--split', default='test', help='of the data set (default: %(default)s)')
  add('--data_dir', default='', help=data_folder.HELP)
  add(
    '--thresholds',
    type=_numbers,
    default=heatmaps.THRESHOLDS,
    metavar='NUMBERS',
    help='of the IoU (default: 0.25,0.5,0.75)',
  )
  add(
    '--skip_missing',
    action='store_true',
    help='leave images without a file out, and say how many',
  )
  add('--json', metavar='FILE', help='write all numbers for machines')
  add('--csv', metavar='FILE', help='write the table as CSV')
  return result


def _numbers(text: str) -> tuple[float, ...]:
  try:
    return tuple(float(word) for word in text.split(','))
  except ValueError as error:
    raise argparse.ArgumentTypeError(
      f'{text!r} is no list of numbers'
    ) from error


def names(folder: pathlib.Path, table: LabelTable) -> tuple[str, ...]:
  """Returns the concepts that the maps of a folder are of, in order.

  Raises:
    UserError: the list is missing, or names what the data set does not have.
  """
  path = folder / NAMES
  try:
    lines = path.read_text(encoding='utf-8').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f'{path} cannot be read ({error}). It must name the concepts of the '
      'maps, one a line, in their order.'
    ) from error
  known = {one.name for one in concepts.of_table(table)}
  found = tuple(concepts.concept(line) for line in lines if line.strip())
  for line, name in zip(filter(str.strip, lines), found, strict=True):
    if name not in known:
      raise UserError(
        f'{path}: {line.strip()!r} is no concept of the data set. '
        '`pinpp labels DATASET --concepts` lists them.'
      )
  if not found or len(set(found)) != len(found):
    raise UserError(f'{path} names no concept, or one of them twice.')
  return found


def maps(path: pathlib.Path, count: int) -> np.ndarray:
  """Returns an image's heat maps: (count, height, width).

  Raises:
    UserError: the file cannot be read, or is of another shape.
  """
  try:
    found = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise UserError(f'{path} cannot be read as .npy ({error})') from error
  shape = getattr(found, 'shape', ())
  if len(shape) != 3 or shape[0] != count or found.dtype.kind not in 'fiub':
    raise UserError(
      f'{path} has shape {shape}; {count} concepts in {NAMES} need numbers of '
      f'shape ({count}, height, width).'
    )
  return found


def score(
  folder: pathlib.Path,
  data: DataSet,
  split: str,
  thresholds: Sequence[float] = heatmaps.THRESHOLDS,
  *,
  skip_missing: bool = False,
) -> tuple[list[Scores], int]:
  """Returns the scores of every concept, and how many images had no maps.

  Raises:
    UserError: a file is missing or wrong.
  """
  order = names(folder, data.labels)
  tally, missing = Tally(thresholds), 0
  for image in _watched(data, split):
    path = (folder / image.file_name).with_suffix('.npy')
    if skip_missing and not path.is_file():
      missing += 1
      continue
    found = maps(path, len(order))
    masks = masks_of(image, data.labels)
    absent = np.zeros(image.mask.shape, np.bool_)
    for name, heat in zip(order, found, strict=True):
      try:
        tally.add(name, heat, masks.get(name, absent))
      except UserError as error:
        raise UserError(f'{path}: {error}') from error
  return tally.scores(), missing


def _watched(data: DataSet, split: str) -> Iterator[AnnotatedImage]:
  images = data.images([split])[split]
  return iter(tqdm.tqdm(images, 'Scoring', disable=None))


def masks_of(image: AnnotatedImage, table: LabelTable) -> dict[str, np.ndarray]:
  """Returns the mask of every concept in an image: bool (height, width)."""
  found = concepts.of_regions(image.regions, table.of_class(image.wnid))
  return {
    name: outlines.union(regions, *image.mask.shape)
    for name, regions in found.items()
    if name
  }


def row(one: Scores, thresholds: Sequence[float]) -> dict[str, Any]:
  """Returns the scores of a concept as a line of the table."""
  return {
    'concept': one.concept,
    'images': one.images,
    'absent': one.absent,
    'pointing': one.pointing,
    'mass': one.mass,
    **{
      f'IoU@{t:g}': value for t, value in zip(thresholds, one.iou, strict=True)
    },
    'pixel AP': one.pixel_ap,
    'presence AP': one.presence_ap,
  }


def _plain(one: Scores) -> dict[str, Any]:
  """Returns scores for JSON, which knows no NaN."""
  known = lambda value: None if value != value else value
  values = dataclasses.asdict(one)
  values['iou'] = [known(value) for value in one.iou]
  return {name: known(value) for name, value in values.items()}


def main(arguments: Sequence[str] | None = None) -> int:
  """Prints the scores and writes what is asked for; returns 0 or 2."""
  options = parser().parse_args(arguments)
  folder = pathlib.Path(options.heatmaps)
  try:
    data = DataSet([options.dataset], options.data_dir)
    scores, missing = score(
      folder,
      data,
      options.split,
      options.thresholds,
      skip_missing=options.skip_missing,
    )
    every = [*scores, heatmaps.mean(scores)]
    rows = [row(one, options.thresholds) for one in every]
    terminal.show(columns.aligned(rows))
    if missing:
      terminal.show(f'{missing:,} images have no heat maps and were left out')
    if options.csv:
      files.write(options.csv, columns.as_csv(rows))
    if options.json:
      facts = {'thresholds': options.thresholds, 'without_maps': missing}
      facts |= {'sources': data.about, 'split': options.split}
      facts['scores'] = [_plain(one) for one in every]
      files.write_json(options.json, facts)
  except (UserError, OSError) as error:
    print(f'pinpp concepts: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('pinpp concepts: stopped', file=sys.stderr)
    return 130
  return 0


if __name__ == '__main__':
  sys.exit(main())
