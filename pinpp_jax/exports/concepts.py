"""Concept manifests: what is where in an image, in names without the class.

A line of <split>.jsonl is an image. Its `concepts` are those of
`pinpp_jax.data.release.concepts`, each with the drawn
regions of its parts and the share of each of 14x14 cells that they cover. What
has no concept (parts that are the whole object, words such as "others") is in
`unnamed`, by its full name. concepts.json lists all concepts with their
classes.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

from pinpp_jax.data import files, labels
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read import annotated
from pinpp_jax.data.read.annotated import AnnotatedImage, Images
from pinpp_jax.data.release import concepts
from pinpp_jax.data.release.records import Annotation
from pinpp_jax.errors import UserError
from pinpp_jax.exports import outlines

GRID = 14


def write(
  images: Mapping[str, Images], table: LabelTable, folder: pathlib.Path
) -> None:
  """Writes <split>.jsonl for every split, and concepts.json.

  Args:
    images: those of each split.
    table: the one they are numbered by.
    folder: where to.
  """
  for split, some in images.items():
    with open(folder / f'{split}.jsonl', 'w', encoding='utf-8') as file:
      for image in some:
        file.write(json.dumps(_line(image, table), ensure_ascii=False) + '\n')
  rows = [
    {
      'concept': one.name,
      'spellings': one.spellings,
      'part_ids': [part.global_id for part in one.parts],
      'wnids': sorted({part.wnid for part in one.parts}),
    }
    for one in concepts.of_table(table)
  ]
  files.write_json(folder / 'concepts.json', rows)


def _line(image: AnnotatedImage, table: LabelTable) -> dict[str, Any]:
  """Returns what the manifest says of an image."""
  height, width = image.mask.shape
  parts = table.of_class(image.wnid)
  named = concepts.of_regions(image.regions, parts)
  unnamed: dict[str, list[Annotation]] = {}
  for region in named.pop('', []):
    unnamed.setdefault(parts[region.part - 1].name, []).append(region)
  first = int(table.first[image.label])
  return {
    'image': image.file_name,
    'wnid': image.wnid,
    'object': table.object_names[image.label],
    'source': image.source,
    'width': width,
    'height': height,
    **{
      kind: {
        name: {
          'regions': [_region(r, first, height, width) for r in drawn],
          'occupancy': np.round(_occupancy(drawn, height, width), 4).tolist(),
        }
        for name, drawn in some.items()
      }
      for kind, some in (('concepts', named), ('unnamed', unnamed))
    },
  }


def _region(
  region: Annotation, first: int, height: int, width: int
) -> dict[str, Any]:
  outline = outlines.segmentation(region)
  x, y, w, h = outlines.box(outlines.runs(region, height, width))
  return {
    'part_id': first + region.part - 1,
    'box_xyxy': [x, y, x + w, y + h],
    'polygons' if isinstance(outline, list) else 'rle': outline,
  }


def _occupancy(
  drawn: Sequence[Annotation], height: int, width: int
) -> np.ndarray:
  return occupancy(outlines.union(drawn, height, width))


def occupancy(pixels: np.ndarray, grid: int = GRID) -> np.ndarray:
  """Returns which share of each cell is covered: float64 (grid, grid).

  The cells divide the whole image evenly; a pixel on a border between cells
  counts for each by the share of it that lies inside.

  Args:
    pixels: bool (height, width).
    grid: cells along each side.
  """
  covered = _sums(_sums(pixels, grid).T, grid).T
  return covered * (grid**2 / pixels.size)


def _sums(values: np.ndarray, cells: int) -> np.ndarray:
  """Returns sums over even cells of the first axis: float64 (cells, ...)."""
  exact = np.int32 if values.dtype == np.bool_ else np.float64
  total = np.cumsum(values, axis=0, dtype=exact)
  total = np.concatenate([np.zeros_like(total[:1]), total])
  # Between two pixels the running sum grows evenly.
  borders = np.arange(cells + 1) * (len(values) / cells)
  below = np.minimum(borders.astype(np.int64), len(values) - 1)
  part = (borders - below)[:, None]
  return np.diff(total[below] * (1 - part) + total[below + 1] * part, axis=0)


def painted(
  path: str | os.PathLike[str], table: LabelTable
) -> Iterator[tuple[str, np.ndarray]]:
  """Yields the file name and part mask of every image of a manifest.

  Masks are uint8 (height, width) of local indices, painted from the regions as
  a build of the data set paints them.

  Args:
    path: of a .jsonl file.
    table: the labels.json beside it.

  Raises:
    UserError: a line cannot be read.
  """
  with open(path, encoding='utf-8') as file:
    for number, text in enumerate(file, 1):
      try:
        line = json.loads(text)
        entries = _entries(line)
        size = line['height'], line['width']
        name, wnid = line['image'], line['wnid']
      except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path}, line {number}: {error!r}') from error
      record = labels.class_record(table, wnid)
      ids = tuple(part.global_id for part in table.of_class(wnid))
      record = dataclasses.replace(record, category_ids=ids)
      drawn = annotated.regions(entries, record, *size)
      yield name, annotated.repaint(drawn, record, *size)


def _entries(line: dict[str, Any]) -> list[dict[str, Any]]:
  """Returns the regions of a line as COCO would have them."""
  return [
    {
      'category_id': region['part_id'],
      'segmentation': region.get('polygons') or region['rle'],
    }
    for kind in ('concepts', 'unnamed')
    for one in line[kind].values()
    for region in one['regions']
  ]
