"""A built data set, or a set of pseudo labels, as a catalogue."""

import bisect
import contextlib
import hashlib
import io
import itertools
import json
import os
import pathlib
import threading
import zipfile

import numpy as np

from pinpp_jax.data import files, labels, masks
from pinpp_jax.data.read import annotated, pseudo
from pinpp_jax.data.read.sources import Recorded
from pinpp_jax.data.release import splits
from pinpp_jax.errors import UserError
from pinpp_jax.viewer import columns as rows_lib
from pinpp_jax.viewer import outlines
from pinpp_jax.viewer.catalogue import Catalogue, Picture
from pinpp_jax.viewer.columns import Details


class RecordedCatalogue(Catalogue):
  """The images of all splits, in the order of their records.

  Names, classes and splits are those of `splits.json`. What else a row holds
  is in the records: they are read once, in a thread, when somebody asks for it,
  and then kept in the cache folder (XDG_CACHE_HOME).

  Args:
    folder: Of one version.
    truth: Folder with true masks `<wnid>/<stem>.png` of local indices, to be
      compared with predicted ones; None without.
  """

  def __init__(self, folder: pathlib.Path, truth: pathlib.Path | None = None):
    self.folder = str(folder)
    self.title = folder.resolve().parent.name
    self.kind = 'built data set'
    if (folder / pseudo.MANIFEST).is_file():
      self.kind = 'pseudo labels'
      self.scored = ('confidence', 'agreement') if truth else ('confidence',)
    if truth and not truth.is_dir():
      raise UserError(f'{truth} is no folder with true masks.')
    self._truth = truth
    self.splits = _split_names(folder)
    self._sources = [
      Recorded(dataset=self.folder, split=name) for name in self.splits
    ]
    self.labels = self._sources[0].labels
    lengths = [len(source) for source in self._sources]
    self._ends = list(itertools.accumulate(lengths))
    self._lock = threading.Lock()
    self._reader: threading.Thread | None = None
    self._closed = threading.Event()
    names = _names(folder, self.splits, self._sources)
    wnids = [name.partition('/')[0] for name in names]
    self.rows = rows_lib.bare(
      names,
      [self.labels.class_index(wnid) for wnid in wnids],
      np.repeat(np.arange(len(lengths)), lengths).tolist(),
      self.labels,
    )
    self._done = 0

  @property
  def done(self) -> int:
    """Of how many rows, from the first, the details are known."""
    return self._done

  def read_details(self, wait: bool = False) -> int:
    """Begins to read all records, or takes what an earlier reading kept."""
    with self._lock:
      if self._reader is None:
        self._reader = threading.Thread(target=self._read_all, daemon=True)
        self._reader.start()
    if wait:
      self._reader.join()
    return self.done

  def close(self) -> None:
    """Ends a reading of details that is still going on."""
    self._closed.set()
    if self._reader is not None:
      self._reader.join()

  def picture(self, index: int) -> Picture:
    """Returns one image with its masks."""
    source, place = self._locate(index)
    example = source[place]
    png, predicted = example['part_mask'], example['source'] == 'pseudo'
    mask = None if png is None else masks.decode(png)
    confidence, parts = np.nan, ()
    if predicted:
      confidence, of_parts = source.confidence(place)
      parts = tuple(of_parts.tolist())
    true = self._true(index) if predicted else mask
    some = mask if mask is not None else true
    return Picture(
      image=example['image'],
      shape=outlines.shape_of(example['image']) if some is None else some.shape,
      true=true,
      predicted=mask if predicted else None,
      confidence=confidence,
      part_confidence=parts,
    )

  def regions(self, index: int) -> list[outlines.Region]:
    """Returns the annotated outlines of an image.

    There are none where the data set does not say which part they are of, as
    those built by older versions do not.
    """
    source, place = self._locate(index)
    wnid = self.labels.wnids[self.rows.label[index]]
    record = labels.class_record(self.labels, wnid)
    mask = self.picture(index).true
    if mask is None or None in record.category_ids:
      return []
    drawn = annotated.regions(source.annotations(place), record, *mask.shape)
    return [outlines.of_annotation(one, mask.shape) for one in drawn]

  def _locate(self, index: int) -> tuple[Recorded, int]:
    which = bisect.bisect_right(self._ends, index)
    start = self._ends[which - 1] if which else 0
    return self._sources[which], index - start

  def _true(self, index: int) -> np.ndarray | None:
    if self._truth is None:
      return None
    path = (self._truth / self.rows.names[index]).with_suffix('.png')
    return masks.decode(path.read_bytes()) if path.is_file() else None

  def _read_all(self) -> None:
    cache = _cache_folder() / f'{self._key()}.npz'
    if _restore(cache, self.rows):
      self._done = len(self.rows)
      return
    for index in range(len(self.rows)):
      if self._closed.is_set():
        return
      rows_lib.put(self.rows, index, self._details(index))
      self._done = index + 1
    # Somebody else's folder, a full disk: then it is read again next time.
    with contextlib.suppress(OSError):
      cache.parent.mkdir(parents=True, exist_ok=True)
      _keep(cache, self.rows)

  def _details(self, index: int) -> Details:
    try:
      seen = self.picture(index)
    except UserError:  # Shown where the image itself is asked for.
      return Details(source='none', areas=np.zeros(0, np.float32))
    mask = seen.true if seen.predicted is None else seen.predicted
    source = 'human' if seen.predicted is None else 'pseudo'
    count = self.labels.part_counts[self.rows.label[index]]
    return Details(
      source='none' if mask is None else source,
      areas=rows_lib.areas(mask, int(count)),
      confidence=seen.confidence,
      agreement=rows_lib.agreement(seen.true, seen.predicted),
    )

  def _key(self) -> str:
    """Returns the name of this data set's cache: another after any change."""
    files_of = sorted(pathlib.Path(self.folder).iterdir())
    stats = [(path.name, path.stat()) for path in files_of]
    facts = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    text = json.dumps([os.path.abspath(self.folder), str(self._truth), facts])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _split_names(folder: pathlib.Path) -> list[str]:
  """Returns the splits that hold records, in the usual order."""
  info = json.loads((folder / 'dataset_info.json').read_text())
  found = [split['name'] for split in info['splits'] if _records(split)]
  usual = [name for name in splits.NAMES if name in found]
  return usual + sorted(set(found) - set(usual))


def _records(split: dict) -> int:
  return sum(map(int, split.get('shardLengths', ())))


def _names(
  folder: pathlib.Path, names: list[str], sources: list[Recorded]
) -> list[str]:
  """Returns the file names of all records.

  `splits.json` has them in the order of the records where our own builders
  wrote both; otherwise the records are asked.
  """
  listed = {}
  if (folder / splits.FILE).is_file():
    listed = splits.load(folder)
  result: list[str] = []
  for name, source in zip(names, sources, strict=True):
    last, given = len(source) - 1, listed.get(name, ())
    ends = {0: source.file_name(0), last: source.file_name(last)}
    if len(given) == len(source) and all(given[i] == ends[i] for i in ends):
      result += given
    else:
      result += [source.file_name(i) for i in range(len(source))]
  return result


def _cache_folder() -> pathlib.Path:
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base).expanduser() / 'pinpp_jax' / 'view'


def _keep(path: pathlib.Path, rows: rows_lib.Rows) -> None:
  buffer = io.BytesIO()
  columns = {name: getattr(rows, name) for name in rows_lib.DETAILS}
  np.savez_compressed(buffer, allow_pickle=False, **columns)
  files.write(path, buffer.getvalue())


def _restore(path: pathlib.Path, rows: rows_lib.Rows) -> bool:
  """Fills in the details that were kept; returns whether there were any."""
  try:
    with np.load(path, allow_pickle=False) as kept:
      for name in rows_lib.DETAILS:
        getattr(rows, name)[:] = kept[name]
  except (OSError, KeyError, ValueError, zipfile.BadZipFile):
    return False
  return True
