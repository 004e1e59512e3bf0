"""Test policy: eight forced CPU devices, strict ranks, given material."""

import fcntl
import gc
from importlib import metadata
import os
import pathlib
import shutil
import tempfile
import threading

# Two runs of one recipe compile once, in subprocesses too.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _CACHE = tempfile.TemporaryDirectory(prefix='pinpp_jax_cache_')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _CACHE.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.2'

# The CPU client aborts the process when a collective's devices do not meet
# within 40 seconds; eight devices on two busy cores once in a while do not.
# Older versions abort at a flag that they do not know.
if tuple(map(int, metadata.version('jaxlib').split('.')[:2])) >= (0, 10):
  os.environ.setdefault(
    'XLA_FLAGS', '--xla_cpu_collective_call_terminate_timeout_seconds=600'
  )

import jax
import pytest

from pinpp_jax.data.build import run
from pinpp_jax.data.mini import drawn_release

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')

ROOT = pathlib.Path(__file__).resolve().parent.parent


def _given(variable: str, default: str) -> pathlib.Path:
  """Returns a folder that is not part of the repository, or skips the test."""
  folder = pathlib.Path(os.environ.get(variable, ROOT / default)).resolve()
  if not folder.is_dir():
    pytest.skip(f'{variable} is not set and {folder} does not exist')
  return folder


@pytest.fixture(scope='session')
def golden() -> pathlib.Path:
  """Numbers recorded from the PyTorch reference."""
  return _given('PINPP_GOLDEN', '../shared/golden')


@pytest.fixture(scope='session')
def pin_real() -> pathlib.Path:
  """Real photographs with part masks, in the release's layout."""
  return _given('PINPP_PIN_REAL', '../shared/pin_real')


@pytest.fixture(scope='session')
def cases() -> pathlib.Path:
  """Small inputs that once failed, each with a README."""
  return _given('PINPP_CASES', '../shared/cases')


def _memory_maps() -> int:
  """Returns how many this process holds, 0 where there is no such limit."""
  maps = pathlib.Path('/proc/self/maps')
  return len(maps.read_text().splitlines()) if maps.exists() else 0


@pytest.fixture(autouse=True)
def _forget_compiled_programs():
  """Frees programs before a process holds too many memory maps.

  A program compiled for CPUs holds several, those of a training run 3,000, and
  Linux allows a process 65,530 (vm.max_map_count).
  """
  yield
  if _memory_maps() > 20_000:
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def key() -> jax.Array:
  return jax.random.key(0)


@pytest.fixture(scope='session')
def shared(tmp_path_factory):
  """Returns a folder that the first worker of xdist to ask makes for all.

  `shared(name, make)` calls `make(folder)` once; tests may only read it.
  """
  base = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    base = base.parent

  def made(name, make):
    folder, done = base / 'shared' / name, base / 'shared' / f'{name}.done'
    folder.parent.mkdir(exist_ok=True)
    with folder.with_name(f'{name}.lock').open('w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        make(folder)
        done.touch()
    return folder

  return made


@pytest.fixture(scope='session')
def mini_data(shared) -> pathlib.Path:
  """The embedded data set without most of its unannotated images."""

  def make(folder):
    manual = folder / 'downloads' / 'manual' / 'pinpp_mini'
    manual.parent.mkdir(parents=True)
    drawn_release.render(manual, unannotated=2, validation=2)
    run.build('pinpp_mini', folder)

  return shared('mini_data', make)


class _EveryMinute:
  """Prints a line a minute: how far the suite is."""

  def __init__(self):
    self._total = self._done = self._failed = 0
    self._over = threading.Event()

  def pytest_sessionstart(self, session):
    write = session.config.pluginmanager.get_plugin('terminalreporter')
    threading.Thread(target=self._report, args=(write,), daemon=True).start()

  def _report(self, terminal):
    minutes = 0
    while not self._over.wait(60):
      minutes += 1
      terminal.write_line(
        f'\n{minutes} min: {self._done} of {self._total} tests,'
        f' {self._failed} failed'
      )

  def pytest_xdist_node_collection_finished(self, node, ids):
    self._total = len(ids)

  def pytest_runtest_logreport(self, report):
    self._done += report.when == 'teardown'
    self._failed += report.failed

  def pytest_sessionfinish(self):
    self._over.set()


def pytest_configure(config):
  # Without xdist the tests run in this process, which captures the lines too.
  if config.getoption('numprocesses', None):
    config.pluginmanager.register(_EveryMinute())
