"""Built data sets in the forms that other software reads.

A format is a function `write(images, labels, folder, **options)`: `images` are
those of every split, gone through once, and everything it writes lies in
`folder`. Beside it `export` puts the label table and where all came from.
"""

from collections.abc import Iterable
import os
import pathlib
from typing import Any

from pinpp_jax.data import files
from pinpp_jax.data.read.annotated import DataSet, Progress
from pinpp_jax.exports import (
  coco,
  concepts,
  folders,
  parquet,
  reference,
  shards,
)

FORMATS = {
  'coco': coco.write,
  'concepts': concepts.write,
  'parquet': parquet.write,
  'reference': reference.write,
  'webdataset': shards.write,
}


def export(
  form: str,
  data: DataSet,
  output: str | os.PathLike[str],
  *,
  splits: Iterable[str] = (),
  progress: Progress | None = None,
  **options: Any,
) -> pathlib.Path:
  """Writes a data set in a format and returns the folder.

  Args:
    form: one of FORMATS.
    data: what to write.
    output: a folder that does not exist, or is empty.
    splits: which; all if none is named.
    progress: passes images on and shows how far they are.
    **options: of the format.

  Raises:
    UserError: something is in the folder, or an option makes no sense. Then
      nothing is left behind.
  """
  images = data.images(splits, progress)
  with folders.new(output) as folder:
    FORMATS[form](images, data.labels, folder, **options)
    data.labels.save(folder / 'labels.json')
    files.write_json(
      folder / 'export.json',
      {
        'format': form,
        'options': options,
        'label_hash': data.labels.hash,
        'sources': data.about,
        'images': {split: len(some) for split, some in images.items()},
      },
    )
  return pathlib.Path(output)
