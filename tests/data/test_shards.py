"""Few files are held open, and only bytes that do not check out are damage."""

import contextlib
import os
import pickle
import resource
import shutil

from array_record.python.array_record_module import ArrayRecordWriter
import built
import pytest

from pinpp_jax import data
from pinpp_jax.data.read import readable, shards
from pinpp_jax.errors import DamagedError, UnreachableError

SHARDS = 12


@pytest.fixture
def paths(tmp_path):
  """Shards of two records each."""
  for i in range(SHARDS):
    writer = ArrayRecordWriter(str(tmp_path / f'{i}'), 'group_size:1')
    for j in range(2):
      writer.write(f'{i} {j}'.encode() * 50)
    writer.close()
  return [str(tmp_path / f'{i}') for i in range(SHARDS)]


def held(folder):
  """Returns how many files of a folder this process holds open."""
  links = [f'/proc/self/fd/{fd}' for fd in os.listdir('/proc/self/fd')]
  found = []
  for link in links:
    with contextlib.suppress(FileNotFoundError):  # The listing's own.
      found.append(os.readlink(link))
  return sum(path.startswith(str(folder)) for path in found)


@contextlib.contextmanager
def descriptors(more):
  """Allows only so many descriptors beyond those in use."""
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  highest = max(map(int, os.listdir('/proc/self/fd')))
  # Fill the gaps: the limit is one of numbers, not of counts.
  gaps = []
  while not gaps or gaps[-1] < highest:
    gaps.append(os.dup(0))
  resource.setrlimit(resource.RLIMIT_NOFILE, (gaps[-1] + 1 + more, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for fd in gaps:
      os.close(fd)


@pytest.mark.parametrize('most', [1, 3])
def test_only_some_readers_stay_open(paths, tmp_path, most):
  readers = shards.Readers(most)
  for _ in range(2):
    for i, path in enumerate(paths):
      assert readers.read(path, 1) == f'{i} 1'.encode() * 50
      assert held(tmp_path) <= most
  assert held(tmp_path) == most
  assert pickle.loads(pickle.dumps(readers)).read(paths[0], 0)


def test_the_number_follows_the_limit(paths):
  with descriptors(64):
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert shards.Readers().most == soft // 8
    readers = shards.Readers()
    for path in paths:
      readers.read(path, 0)


def test_a_full_table_is_no_damage_and_passes(paths):
  readers = shards.Readers()
  with (
    descriptors(0),
    pytest.raises(UnreachableError, match='Too many open files.*no damage'),
  ):
    readers.read(paths[0], 0)
  assert readers.read(paths[0], 0) == b'0 0' * 50


def test_a_missing_file_is_no_damage_and_changed_bytes_are(paths, tmp_path):
  readers = shards.Readers()
  with pytest.raises(UnreachableError, match='No such file.*mounted'):
    readers.read(str(tmp_path / 'lost'), 0)
  with open(paths[0], 'r+b') as file:
    file.seek(64)
    file.write(bytes(32))
  with pytest.raises(DamagedError, match='does not check out'):
    readers.read(paths[0], 0)


@pytest.mark.parametrize('fault', ['full table', 'lost mount'])
def test_skip_bad_counts_no_fault_of_the_system(data_dir, tmp_path, fault):
  copy = shutil.copytree(data_dir, tmp_path / 'copy')
  source = data.Recorded(data_dir=str(copy), split='train')
  if fault == 'lost mount':
    shutil.rmtree(copy)
  with contextlib.ExitStack() as stack:
    if fault == 'full table':
      stack.enter_context(descriptors(0))
    with pytest.raises(UnreachableError, match='no damage'):
      # One thread: a pool's first thread needs no descriptor.
      readable.readable(source, threads=1)
  assert len(source) == built.SIZES['train']
