"""A release folder as a catalogue."""

from collections.abc import Callable, Iterable, Sequence
import functools
import pathlib

import numpy as np

from pinpp_jax.data import labels as labels_lib
from pinpp_jax.data.build import check_release
from pinpp_jax.data.imagenet import layouts
from pinpp_jax.data.imagenet.layouts import ImageNetCopy
from pinpp_jax.data.labels import LabelTable, Part
from pinpp_jax.data.read import statistics
from pinpp_jax.data.release import painting
from pinpp_jax.data.release import splits as splits_lib
from pinpp_jax.data.release.findings import Findings, Refused
from pinpp_jax.data.release.reader import Release
from pinpp_jax.data.release.records import ClassRecord, ImageRecord
from pinpp_jax.errors import UserError
from pinpp_jax.viewer import columns as rows_lib
from pinpp_jax.viewer import outlines
from pinpp_jax.viewer.catalogue import Catalogue, Picture
from pinpp_jax.viewer.columns import Details

_CLASSES = 16  # So many are held in memory with all their outlines.


class ReleasedCatalogue(Catalogue):
  """All annotated images, class by class, and the discarded ones after them.

  Every class file is read once for the rows and again when one of its images
  is looked at. Broken entries are passed over: `pinpp check` lists them.

  Args:
    folder: In the release's layout.
    imagenet_dir: The images; by default those in the folder. Without any,
      outlines are shown on grey.
    progress: Passes the classes on and shows how far they are.

  Raises:
    UserError: There is no release, or no copy where one was named.
  """

  splits = splits_lib.NAMES

  def __init__(
    self,
    folder: pathlib.Path,
    imagenet_dir: str = '',
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
  ):
    self.folder, self.title = str(folder), folder.resolve().name
    self.kind = 'release'
    self._release = Release(folder, Findings(collect=True))
    self._copy = _copy(folder, imagenet_dir)
    self._record = functools.lru_cache(_CLASSES)(self._release.load)
    self.labels, self.rows = self._read(progress)

  def picture(self, index: int) -> Picture:
    """Returns one image with its mask."""
    found = self._image(index)
    image = self._bytes(self.rows.names[index])
    if found is None:
      return Picture(image=image, shape=outlines.shape_of(image))
    mask = painting.paint(found, self._class(index)).mask
    return Picture(image=image, shape=(found.height, found.width), true=mask)

  def regions(self, index: int) -> list[outlines.Region]:
    """Returns the annotated outlines of an image."""
    found = self._image(index)
    if found is None:
      return []
    shape = found.height, found.width
    return [outlines.of_annotation(one, shape) for one in found.annotations]

  def _class(self, index: int) -> ClassRecord:
    return self._record(self.labels.wnids[self.rows.label[index]])

  def _image(self, index: int) -> ImageRecord | None:
    """Returns an image's annotations; None if it was discarded."""
    name = self.rows.names[index]
    images = self._class(index).images
    return next((one for one in images if one.file_name == name), None)

  def _bytes(self, name: str) -> bytes | None:
    if self._copy is None:
      return None
    try:
      return self._copy.read(name, 'train')
    except UserError:
      return None

  def _read(
    self, progress: Callable[[Sequence[str]], Iterable[str]]
  ) -> tuple[LabelTable, rows_lib.Rows]:
    """Returns the label table and all rows."""
    parts: list[Part] = []
    objects: list[str] = []
    names: list[list[str]] = []
    details: list[Details] = []
    wnids: list[str] = []
    for wnid in progress(self._release.wnids):
      try:
        record = self._release.load(wnid)
      except Refused:  # Nothing in this file can be used.
        continue
      wnids.append(wnid)
      objects.append(record.object_name)
      parts += labels_lib.class_parts(record, len(parts) + 1)
      names.append([image.file_name for image in record.images])
      details += [_details(image, record) for image in record.images]
    table = LabelTable(
      wnids=tuple(wnids), object_names=tuple(objects), parts=tuple(parts)
    )
    split, _ = check_release.split(self._release, names)
    annotated = [name for some in names for name in some]
    discarded = self._discarded(set(annotated), table)
    place = {
      name: self.splits.index(s) for s, some in split.items() for name in some
    }
    every = annotated + discarded
    rows = rows_lib.bare(
      every,
      [table.class_index(name.partition('/')[0]) for name in every],
      [place.get(name, len(self.splits)) for name in every],
      table,
    )
    nothing = Details(source='none', areas=np.zeros(0, np.float32))
    for index, one in enumerate(details + [nothing] * len(discarded)):
      rows_lib.put(rows, index, one)
    rows.discarded[:] = [name in self._release.discarded for name in every]
    return table, rows

  def _discarded(self, annotated: set[str], table: LabelTable) -> list[str]:
    """Returns the discarded images that can be shown."""
    if self._copy is None:
      return []
    names = sorted(self._release.discarded - annotated)
    known = [name for name in names if name.partition('/')[0] in table.wnids]
    return [name for name in known if self._bytes(name) is not None]


def _details(image: ImageRecord, record: ClassRecord) -> Details:
  """Returns the parts' areas as they were drawn; nothing is painted."""
  areas = np.zeros(len(record.part_names), np.float32)
  size = image.height, image.width
  for annotation in image.annotations:
    areas[annotation.part - 1] += statistics.area(annotation, *size)
  return Details(
    source='human' if image.annotations else 'none',
    areas=areas / (image.height * image.width),
  )


def _copy(folder: pathlib.Path, imagenet_dir: str) -> ImageNetCopy | None:
  if imagenet_dir:
    return layouts.open_copy(imagenet_dir)
  for place in (folder, folder / 'imagenet'):
    try:
      return layouts.open_copy(place)
    except UserError:
      continue
  return None
