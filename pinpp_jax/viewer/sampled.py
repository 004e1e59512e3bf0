"""The samples that a run kept of its predictions, as a catalogue."""

import io
import pathlib

import numpy as np
from PIL import Image

from pinpp_jax.data.labels import LabelTable
from pinpp_jax.errors import UserError
from pinpp_jax.evals import samples
from pinpp_jax.viewer import columns as rows_lib
from pinpp_jax.viewer.catalogue import Catalogue, Picture
from pinpp_jax.viewer.outlines import Region


class SampledCatalogue(Catalogue):
  """Images as a network saw them, with true and predicted parts.

  Args:
    folder: Of the run.

  Raises:
    UserError: The run has not kept any samples yet.
  """

  def __init__(self, folder: pathlib.Path):
    self.folder, self.title = str(folder), folder.resolve().name
    self.kind = 'predictions of a run'
    self.splits = ()
    self.scored = ('agreement',)
    self.labels = LabelTable.load(folder / 'labels.json')
    self._samples = samples.load(folder / 'samples.npz')
    if not self._samples:
      raise UserError(
        f'{folder} has no samples.npz: it comes with the end of the run. Finish'
        ' it with the command that began it.'
      )
    wnids = [self.labels.wnids[sample.label] for sample in self._samples]
    self.rows = rows_lib.bare(
      [f'{wnid}/sample {i}' for i, wnid in enumerate(wnids, 1)],
      [sample.label for sample in self._samples],
      [0] * len(self._samples),
      self.labels,
    )
    for index, sample in enumerate(self._samples):
      seen = self.picture(index)
      count = int(self.labels.part_counts[sample.label])
      details = rows_lib.Details(
        source='human' if sample.masked else 'none',
        areas=rows_lib.areas(seen.true, count),
        agreement=rows_lib.agreement(seen.true, seen.predicted),
      )
      rows_lib.put(self.rows, index, details)

  def picture(self, index: int) -> Picture:
    """Returns one image with its masks."""
    sample = self._samples[index]
    local = lambda grid: self._local(grid, sample.label)
    buffer = io.BytesIO()
    Image.fromarray(sample.image).save(buffer, 'PNG')
    height, width = sample.image.shape[:2]
    return Picture(
      image=buffer.getvalue(),
      shape=(height, width),
      true=local(sample.true) if sample.masked else None,
      predicted=None if sample.predicted is None else local(sample.predicted),
      guess=sample.predicted_class,
    )

  def regions(self, index: int) -> list[Region]:
    """Returns nothing: a run keeps grids, no outlines."""
    return []

  def _local(self, grid: np.ndarray, label: int) -> np.ndarray:
    """Returns a grid of global part ids as local ones of a class."""
    first, count = self.labels.first[label], self.labels.part_counts[label]
    own = (grid >= first) & (grid < first + count)
    return np.where(own, grid - first + 1, 0).astype(np.uint8)
