"""From a catalogue to what the page asks for: plain values for JSON."""

from collections.abc import Sequence
import math
from typing import Any

import numpy as np

from pinpp_jax.data import colours
from pinpp_jax.data.labels import Part
from pinpp_jax.data.release import concepts
from pinpp_jax.viewer import columns as rows_lib
from pinpp_jax.viewer import outlines
from pinpp_jax.viewer import query as query_lib
from pinpp_jax.viewer.catalogue import Catalogue, Picture
from pinpp_jax.viewer.columns import SOURCES
from pinpp_jax.viewer.query import Query


def about(catalogue: Catalogue) -> dict[str, Any]:
  """Returns what stays the same: names of classes and parts, and what is there.

  `fields` are those of a query that can tell images of this catalogue apart.
  """
  table, rows = catalogue.labels, catalogue.rows
  counts = np.bincount(rows.label, minlength=table.num_classes)
  splits = np.bincount(rows.split, minlength=len(catalogue.splits))
  names = zip(table.wnids, table.object_names, counts.tolist(), strict=True)
  return {
    'title': catalogue.title,
    'kind': catalogue.kind,
    'folder': catalogue.folder,
    'images': len(rows),
    'classes': [
      {
        'wnid': wnid,
        'name': name or wnid,
        'images': count,
        'parts': [_part(part) for part in table.of_class(wnid)],
      }
      for wnid, name, count in names
    ],
    'concepts': [one.name for one in concepts.of_table(table)],
    'splits': [
      {'name': name, 'images': int(count)}
      for name, count in zip(catalogue.splits, splits, strict=False)
    ],
    'sources': SOURCES,
    'fields': _fields(catalogue),
  }


def _part(part: Part) -> dict[str, Any]:
  return {
    'id': part.global_id,
    'local': part.local_index,
    'name': part.name,
    'short': part.generic_name or part.name,
    'concept': concepts.of_part(part),
    'inside': list(part.parent),
    'colour': colours.colour(part.local_index),
  }


def _fields(catalogue: Catalogue) -> list[str]:
  """Returns the filters that make sense here."""
  rows, found = catalogue.rows, ['class', 'part', 'find', *catalogue.scored]
  if len(catalogue.splits) > 1:
    found.append('split')
  if rows.discarded.any():
    found.append('discarded')
  if 'confidence' not in found:  # All of those are by a network.
    known = catalogue.done == len(rows)
    if not known or len(np.unique(rows.source)) > 1:
      found.append('source')
  return found


def listing(catalogue: Catalogue, query: Query) -> dict[str, Any]:
  """Returns a page of the images that fit, and how many there are.

  Where details of rows are needed and not known yet, reading them begins, and
  `done` says of how many images, from the first, the answer is.
  """
  places, done = _select(catalogue, query)
  start = (query.page - 1) * query.count
  return {
    'total': len(places),
    'done': done,
    'images': len(catalogue.rows),
    'page': query.page,
    'count': query.count,
    'rows': [
      row(catalogue, int(i)) for i in places[start : start + query.count]
    ],
  }


def _select(catalogue: Catalogue, query: Query) -> tuple[np.ndarray, int]:
  done = catalogue.read_details() if query.needs_details else catalogue.done
  places = query_lib.select(
    catalogue.rows, query, catalogue.labels, catalogue.splits, done
  )
  return places, done if query.needs_details else len(catalogue.rows)


def row(catalogue: Catalogue, index: int) -> dict[str, Any]:
  """Returns what the grid shows of an image besides its picture."""
  rows, split = catalogue.rows, int(catalogue.rows.split[index])
  known = index < catalogue.done
  names = catalogue.splits
  return {
    'id': index,
    'name': rows.names[index],
    'label': int(rows.label[index]),
    'split': names[split] if split < len(names) else '',
    'discarded': bool(rows.discarded[index]),
    'source': SOURCES[rows.source[index]] if known else '',
    'confidence': _number(rows.confidence[index]) if known else None,
    'agreement': _number(rows.agreement[index]) if known else None,
  }


def _number(value: float) -> float | None:
  return None if math.isnan(value) else round(float(value), 4)


def statistics(catalogue: Catalogue, query: Query) -> dict[str, Any]:
  """Returns in how many images that fit each part is seen, and how large.

  With a class these are its parts, with the median of their shares of the
  image; otherwise the concepts, those in most images first.
  """
  done = catalogue.read_details()
  places, _ = _select(catalogue, query)
  places = places[places < done]
  areas = catalogue.rows.areas[places]
  label = catalogue.rows.label[places]
  lines = (
    _of_parts(catalogue.labels.of_class(query.wnid), areas)
    if query.wnid
    else _of_concepts(catalogue, label, areas)
  )
  return {
    'done': done,
    'images': len(catalogue.rows),
    'counted': len(places),
    'rows': lines,
  }


def _of_parts(parts: Sequence[Part], areas: np.ndarray) -> list[dict[str, Any]]:
  found = []
  for part in parts:
    seen = areas[:, part.local_index - 1]
    seen = seen[seen > 0]
    found.append(
      {
        'name': part.name,
        'part': part.global_id,
        'colour': colours.colour(part.local_index),
        'images': len(seen),
        'median': _number(np.median(seen)) if len(seen) else None,
      }
    )
  return found


def _of_concepts(
  catalogue: Catalogue, label: np.ndarray, areas: np.ndarray
) -> list[dict[str, Any]]:
  table, found = catalogue.labels, []
  for one in concepts.of_table(table):
    wanted = np.zeros((table.num_classes, table.max_parts), np.bool_)
    for part in one.parts:
      wanted[table.class_index(part.wnid), part.local_index - 1] = True
    rows = np.flatnonzero(np.take(wanted.any(1), label))
    seen = (areas[rows] * wanted[label[rows]]).sum(1)
    seen = seen[seen > 0]
    if not len(seen):
      continue
    found.append(
      {
        'name': one.name,
        'concept': one.name,
        'classes': one.classes,
        'images': len(seen),
        'median': _number(np.median(seen)),
      }
    )
  found.sort(key=lambda line: (-line['images'], line['name']))
  return found


def detail(catalogue: Catalogue, index: int) -> dict[str, Any]:
  """Returns everything that is shown of one image.

  `layers` are paths by local index: 'true' and 'predicted' masks, 'polygons' as
  they were drawn, and 'differs': where true and predicted parts differ, or else
  where an outline shows another part. They are in pixels of the image, or in
  the cells of a grid whose (height, width) `grids` gives.
  """
  picture = catalogue.picture(index)
  regions = catalogue.regions(index)
  height, width = picture.shape
  layers: dict[str, Any] = {}
  grids: dict[str, list[int]] = {}
  for name in ('true', 'predicted'):
    mask = getattr(picture, name)
    if mask is not None:
      layers[name] = outlines.of_mask(mask)
      grids[name] = list(mask.shape)
  if regions:
    layers['polygons'] = _joined(regions)
  differs = _differs(picture, regions)
  if differs is not None:
    layers['differs'] = {0: outlines.of_pixels(differs)}
    grids['differs'] = list(differs.shape)
  guess = picture.guess
  return row(catalogue, index) | {
    'width': width,
    'height': height,
    'there': picture.image is not None,
    'layers': layers,
    'grids': grids,
    'confidence': _number(picture.confidence),
    'agreement': _number(rows_lib.agreement(picture.true, picture.predicted)),
    'guess': None if guess is None else int(guess),
    'parts': _amounts(catalogue, index, picture, regions),
  }


def _joined(regions: Sequence[outlines.Region]) -> dict[int, str]:
  paths: dict[int, str] = {}
  for region in regions:
    paths[region.part] = paths.get(region.part, '') + region.path
  return paths


def _differs(
  picture: Picture, regions: Sequence[outlines.Region]
) -> np.ndarray | None:
  true, predicted = picture.true, picture.predicted
  if true is not None and predicted is not None:
    return true != predicted if true.shape == predicted.shape else None
  if regions and true is not None:
    return outlines.hidden(regions, true)
  return None


def _amounts(
  catalogue: Catalogue,
  index: int,
  picture: Picture,
  regions: Sequence[outlines.Region],
) -> list[dict[str, Any]]:
  """Returns how much of each part of the class there is in an image."""
  found = []
  wnid = catalogue.labels.wnids[catalogue.rows.label[index]]
  for part in catalogue.labels.of_class(wnid):
    local = part.local_index
    share = lambda mask, local=local: (
      None if mask is None else _number(np.equal(mask, local).mean())
    )
    sure = picture.part_confidence
    found.append(
      {
        'local': local,
        'true': share(picture.true),
        'predicted': share(picture.predicted),
        'outlines': sum(region.part == local for region in regions),
        'confidence': _number(sure[local - 1]) if len(sure) >= local else None,
      }
    )
  return found
