"""Records of a built split, read at random from ArrayRecord shards.

TFDS's own data source keeps one file open for every shard it has read from, in
every process. A set of a thousand shards then exceeds what Linux usually lets a
process hold, so only some readers are kept here.
"""

import bisect
import collections
from collections.abc import Collection, Mapping, Sequence
import itertools
import re
import resource
import threading
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader
import tensorflow_datasets as tfds

from pinpp_jax.data import files
from pinpp_jax.errors import DamagedError, UserError

# Records are read at random: what follows one is not wanted.
_OPTIONS = 'readahead_buffer_size:0'
_BUFFER = 32_768
# One source's share of the files that a process may hold: there are several,
# besides the run's own files, sockets and pipes.
_SHARE = 8
# How the library words an error of the system; what else it says is damage.
_SYSTEM = re.compile(r'\b\w+\(\) failed: ([^;]+)')


class Records(Sequence):
  """The records of a split; those of `encoded` are left as stored bytes.

  Holds no open file when it is pickled.

  Raises:
    UserError: If there is no such split, or it is not in ArrayRecord files.
      While reading: a `DamagedError` if the bytes do not check out, an
      `UnreachableError` if the file cannot be opened or read.
  """

  def __init__(self, builder: Any, split: str, encoded: Collection[str]):
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
      raise UserError(
        f'{builder.data_dir} is not in ArrayRecord files, the only ones that'
        ' can be read at random. Build it again.'
      )
    try:
      parts = builder.info.splits[split].file_instructions
    except (ValueError, KeyError, AssertionError) as e:
      raise UserError(
        f'split={split!r} is not one of {sorted(builder.info.splits)} of'
        f' {builder.data_dir}, nor a part of one in TFDS notation.'
      ) from e
    self._paths = [str(part.filename) for part in parts]
    self._skips = [part.skip for part in parts]
    self._ends = list(itertools.accumulate(part.take for part in parts))
    self._features = builder.info.features
    skip = tfds.decode.SkipDecoding()
    self._decoders = {name: skip for name in encoded if name in self._features}
    self._readers = Readers()

  @property
  def fields(self) -> frozenset[str]:
    """The names of what a record holds."""
    return frozenset(self._features)

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def __getitem__(self, index: Any) -> Mapping[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(index)
    shard = bisect.bisect_right(self._ends, index)
    start = self._ends[shard - 1] if shard else 0
    place = index - start + self._skips[shard]
    data = self._readers.read(self._paths[shard], place)
    return self._features.deserialize_example_np(data, decoders=self._decoders)


class Readers:
  """Reads records of many files, of which only the last used stay open.

  Threads share it. Pickles without its readers.

  Args:
    most: How many stay open; by default an eighth of what the process may hold.
  """

  def __init__(self, most: int = 0):
    self._given = most
    self._lock = threading.Lock()
    self._open: collections.OrderedDict[str, Any] = collections.OrderedDict()

  def __reduce__(self):
    return Readers, (self._given,)

  @property
  def most(self) -> int:
    """How many readers stay open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    return self._given or (10_000 if unlimited else max(1, soft // _SHARE))

  def read(self, path: str, place: int) -> bytes:
    """Returns a record's bytes.

    Raises:
      DamagedError: If the shard's bytes do not check out.
      UnreachableError: If it cannot be opened or read.
    """
    try:
      return self._reader(path).read([place])[0]
    except (IndexError, RuntimeError, ValueError) as error:
      with self._lock:
        self._open.pop(path, None)  # It would fail for good.
      text = ' '.join(str(error).split())
      if system := _SYSTEM.search(text):
        raise files.unreachable(path, system[1]) from error
      raise DamagedError(
        f'record {place} of {path} does not check out ({text})'
      ) from error

  def _reader(self, path: str) -> Any:
    with self._lock:
      if path in self._open:
        self._open.move_to_end(path)
        return self._open[path]
    # It does not raise: a file that cannot be opened is told by the first read.
    reader = ArrayRecordReader(
      path, options=_OPTIONS, file_reader_buffer_size=_BUFFER
    )
    with self._lock:
      self._open[path] = reader
      while len(self._open) > self.most:
        # Closed when the last thread that reads from it is done.
        self._open.popitem(last=False)
    return reader
