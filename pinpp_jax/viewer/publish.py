"""The page with some images in a folder of its own, for any web space.

The folder needs no server: `index.html` opens as a file, too.
"""

from collections.abc import Callable, Iterable, Sequence
import pathlib
import shutil
import tempfile
from typing import Any

import numpy as np

from pinpp_jax.data import files
from pinpp_jax.errors import UserError
from pinpp_jax.viewer import page_json, render, thumbnails
from pinpp_jax.viewer import query as query_lib
from pinpp_jax.viewer.catalogue import Catalogue
from pinpp_jax.viewer.query import Query


def publish(
  catalogue: Catalogue,
  output: pathlib.Path,
  query: Query,
  number: int,
  progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> int:
  """Writes a folder, whole or not at all, and returns how many images it holds.

  Args:
    catalogue: Where images are taken from.
    output: The folder, which must not be there yet.
    query: Which images.
    number: At most so many, from the whole length of those that fit.
    progress: Passes the images on and shows how far they are.

  Raises:
    UserError: the folder is there, or no image fits.
  """
  if output.exists():
    raise UserError(f'{output} is there already; remove it or name another.')
  places = _chosen(catalogue, query, number)
  if not len(places):
    raise UserError(f'no image of {catalogue.folder} fits what was asked for.')
  output.parent.mkdir(parents=True, exist_ok=True)
  draft = pathlib.Path(
    tempfile.mkdtemp(prefix=f'.{output.name}.', dir=output.parent)
  )
  try:
    images = [_write(catalogue, i, draft) for i in progress(places)]
    about = page_json.about(catalogue)
    files.write(
      draft / 'index.html', render.still(_about(about, images), images)
    )
    draft.chmod(0o755)
    draft.rename(output)
  finally:
    shutil.rmtree(draft, ignore_errors=True)
  return len(places)


def _chosen(catalogue: Catalogue, query: Query, number: int) -> list[int]:
  if query.needs_details:
    catalogue.read_details(wait=True)
  found = query_lib.select(
    catalogue.rows, query, catalogue.labels, catalogue.splits, catalogue.done
  )
  if query.order:  # The first are meant.
    return found[:number].tolist()
  number = min(number, len(found))
  return [int(found[i * len(found) // number]) for i in range(number)]


def _write(
  catalogue: Catalogue, index: int, folder: pathlib.Path
) -> dict[str, Any]:
  """Writes an image's files; returns what the page holds of it."""
  picture, name = catalogue.picture(index), catalogue.rows.names[index]
  small = thumbnails.photograph(picture, name)
  contents = {
    'image': ('jpg', small if picture.image is None else picture.image),
    'thumbnail': ('jpg', small),
    'parts': ('png', thumbnails.parts(picture)),
  }
  places = {}
  for kind, (suffix, data) in contents.items():
    places[kind] = f'{kind}/{index}.{suffix}'
    (folder / kind).mkdir(exist_ok=True)
    (folder / places[kind]).write_bytes(data)
  return page_json.detail(catalogue, index) | {'files': places}


def _about(
  about: dict[str, Any], images: Sequence[dict[str, Any]]
) -> dict[str, Any]:
  """Returns what the page says of itself: its own counts, and no local path."""
  label = np.bincount(
    [one['label'] for one in images], minlength=len(about['classes'])
  )
  classes = [
    one | {'images': count}
    for one, count in zip(about['classes'], label.tolist(), strict=True)
  ]
  names = [one['split'] for one in images]
  splits = [
    one | {'images': names.count(one['name'])} for one in about['splits']
  ]
  return about | {
    'folder': '',
    'images': len(images),
    'classes': classes,
    'splits': splits,
  }
