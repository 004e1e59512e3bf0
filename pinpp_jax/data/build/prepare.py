"""From a release and an ImageNet copy to records, one class at a time.

Everything is checked in a first pass, which paints the masks and puts them
aside in one temporary file; what stays in memory is the label table and a few
numbers per image. So a broken input is named before anything is written, and
records can then come in any order.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any, BinaryIO

from pinpp_jax.data import labels
from pinpp_jax.data.build import check_release
from pinpp_jax.data.build.check_release import Examined
from pinpp_jax.data.imagenet.layouts import ImageNetCopy
from pinpp_jax.data.labels import LabelTable, Part
from pinpp_jax.data.release import splits
from pinpp_jax.data.release.findings import Findings
from pinpp_jax.data.release.reader import Release
from pinpp_jax.data.release.records import Annotation, ImageRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Row:
  """Where an image's painted mask and annotations lie, and their sizes."""

  label: int
  source: str
  offset: int
  mask_size: int
  text_size: int
  image_size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
  """A checked release, ready to be written."""

  labels: LabelTable
  split: splits.Split
  rule: str
  findings: Findings
  copy: ImageNetCopy
  spool: pathlib.Path
  rows: Mapping[str, _Row]

  def num_bytes(self, file_names: Iterable[str]) -> int:
    """Returns about how many bytes the records of these images take."""
    rows = (self.rows[name] for name in file_names)
    return sum(r.mask_size + r.text_size + r.image_size + 200 for r in rows)

  def only(self, file_names: Iterable[str]) -> 'Prepared':
    """Returns what the records of these images need."""
    rows = {name: self.rows[name] for name in file_names}
    return dataclasses.replace(self, split={}, rows=rows)

  def records(self, file_names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yields the records of these images, in this order."""
    with open(self.spool, 'rb') as spool:
      for name in file_names:
        row = self.rows[name]
        spool.seek(row.offset)
        yield {
          'image': self.copy.read(name, 'train'),
          'part_mask': spool.read(row.mask_size),
          'label': row.label,
          'wnid': self.labels.wnids[row.label],
          'file_name': name,
          'source': row.source,
          'annotations': spool.read(row.text_size).decode(),
        }

  def summary(self) -> dict[str, Any]:
    """Returns the facts of the built data set as plain data."""
    return {
      'classes': self.labels.num_classes,
      'parts': self.labels.num_parts,
      'images': sum(len(names) for names in self.split.values()),
      'masks': sum(part.count for part in self.labels.parts),
      'splits': {name: len(names) for name, names in self.split.items()},
      'split_rule': self.rule,
      'split_hash': splits.hash_of(self.split),
      'label_hash': self.labels.hash,
      'findings': self.findings.as_dict(),
    }


def prepare(
  release: Release,
  copy: ImageNetCopy,
  spool: pathlib.Path,
  progress: Callable[[Sequence[str]], Iterable[str]] = iter,
  each: Callable[..., Iterable[Any]] = map,
) -> Prepared:
  """Checks and paints a release, and returns it ready to be written.

  Args:
    release: the annotations.
    copy: where the images are.
    spool: a file that does not exist yet; delete it after the last record.
    progress: passes the classes on and shows how far they are.
    each: as `map`, over the classes; possibly in other processes.

  Raises:
    UserError: the first thing that is broken, unless the findings skip it.
  """
  findings = release.findings
  rows: dict[str, _Row] = {}
  names: list[tuple[str, ...]] = []
  objects: list[str] = []
  parts: list[Part] = []
  full = len(release.wnids) == check_release.PUBLISHED['classes']
  if full:
    check_release.known_classes(release.wnids, findings)
  with open(spool, 'xb') as file:
    seen = check_release.classes(release, copy, progress, full, each)
    for label, (record, examined) in enumerate(seen):
      for image, found in zip(record.images, examined, strict=True):
        rows[image.file_name] = _put_aside(image, found, label, file)
      names.append(tuple(image.file_name for image in record.images))
      objects.append(record.object_name)
      parts += labels.class_parts(record, len(parts) + 1)
  table = LabelTable(
    wnids=release.wnids, object_names=tuple(objects), parts=tuple(parts)
  )
  check_release.totals(table, len(rows), findings)
  split, rule = check_release.split(release, names)
  return Prepared(
    labels=table,
    # Records are shuffled once and for all, so that the first thousand of a
    # split are a sample of it, by the hash the split itself goes by.
    split={name: tuple(splits.order(files)) for name, files in split.items()},
    rule=rule,
    findings=findings,
    copy=copy,
    spool=spool,
    rows=rows,
  )


def _put_aside(
  image: ImageRecord, found: Examined, label: int, spool: BinaryIO
) -> _Row:
  """Writes an image's mask and annotations to the spool."""
  text = annotation_text(image.annotations).encode()
  offset = spool.tell()
  spool.write(found.png + text)
  return _Row(
    label=label,
    source='human' if image.annotations else 'none',
    offset=offset,
    mask_size=len(found.png),
    text_size=len(text),
    image_size=found.image_size,
  )


def annotation_text(annotations: Iterable[Annotation]) -> str:
  """Returns an image's COCO entries as JSON.

  The entries are as they were read, but a segmentation of which polygons were
  dropped holds the remaining ones.
  """
  entries = []
  for annotation in annotations:
    entry = annotation.entry
    stored = entry.get('segmentation')
    if isinstance(stored, list) and len(annotation.polygons) < len(stored):
      flat = [polygon.ravel().tolist() for polygon in annotation.polygons]
      entry = dict(entry, segmentation=flat)
    entries.append(entry)
  return json.dumps(entries, separators=(',', ':'))
