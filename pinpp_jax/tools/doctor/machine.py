"""Of the doctor: what is installed, and which devices JAX sees."""

from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import subprocess
import sys
from typing import Any

from pinpp_jax.tools.doctor.diagnosis import Line, missing, ok, warn

_PROJECT = pathlib.Path(__file__).resolve().parents[3] / 'pyproject.toml'
_PYTHON = (3, 11)
# Bytes that 8 workers take at most, with batches of 512 images of 224 pixels.
_SHARED = 2.8e9
# GB of the published images and what is made of them, as README.md says.
_DISK = {'ImageNet as a tar': 138, 'pinpp': 12, 'pinpp_pseudo': 130}
_TIMEOUT = 180  # Seconds until JAX must have found its devices.

# In a process of its own: a broken plug-in may hang, or end the process.
_PROBE = """
import json, jax
devices = jax.devices()
print(json.dumps({
  'version': jax.__version__,
  'backend': jax.default_backend(),
  'kinds': [device.device_kind for device in devices],
}))
"""


def installed() -> Iterator[Line]:
  """Yields Python, the packages, and which extras are complete."""
  version = platform.python_version()
  if sys.version_info < _PYTHON:
    yield missing('Python', f'{version}; 3.11 or newer is needed')
  else:
    yield ok('Python', f'{version} on {platform.platform(terse=True)}')
  try:
    own = metadata.version('pinpp_jax')
    yield ok('pinpp_jax', own)
  except metadata.PackageNotFoundError:
    found = 'not installed, only lying here; the command pinpp is not there'
    yield warn('pinpp_jax', found, f'python -m pip install {_ourselves()}')
  core, extras = requirements()
  yield from _core(core)
  complete = [n for n, needs in extras.items() if not _lacking(needs)]
  rest = [name for name in extras if name not in complete]
  words = f'{", ".join(complete) or "none"}; not: {", ".join(rest) or "none"}'
  yield ok('extras', words)


def _core(core: list[str]) -> Iterator[Line]:
  lacking = _lacking(core)
  for name, found in lacking.items():
    needed = next(r for r in core if _name(r) == name)
    yield missing(
      name,
      f'{found or "not installed"}; needed: {needed}',
      f'python -m pip install {_ourselves()}',
    )
  versions = [
    f'{_name(need)} {_version(_name(need))}'
    for need in core
    if _name(need) not in lacking
  ]
  yield ok(f'{len(versions)} of {len(core)} packages', ', '.join(versions))


def requirements() -> tuple[list[str], dict[str, list[str]]]:
  """Returns what the package needs, and what each of its extras does."""
  import tomllib  # Not in a Python that is too old, which must be said.

  if _PROJECT.is_file():
    project = tomllib.loads(_PROJECT.read_text())['project']
    return project['dependencies'], project['optional-dependencies']
  core: list[str] = []
  extras: dict[str, list[str]] = {}
  for line in metadata.requires('pinpp_jax') or []:
    need, _, marker = line.partition(';')
    extra = re.search(r'extra == [\'"]([\w-]+)[\'"]', marker)
    (extras.setdefault(extra[1], []) if extra else core).append(need.strip())
  return core, extras


def _ourselves(extra: str = '') -> str:
  """Returns what pip calls this package, with an extra."""
  if not _PROJECT.is_file():
    return f"'pinpp_jax[{extra}]'" if extra else 'pinpp_jax'
  folder = os.path.relpath(_PROJECT.parent)
  place = '.' if folder == '.' else str(_PROJECT.parent)
  return f"-e '{place}[{extra}]'" if extra else f'-e {place}'


def _name(need: str) -> str:
  """Returns the package of a requirement such as 'jax[cuda12]>=0.7'."""
  found = re.match(r'[\w.-]+', need)
  return found[0] if found else need


def _version(name: str) -> str:
  try:
    return metadata.version(name)
  except metadata.PackageNotFoundError:
    return ''


def _lacking(needs: Iterable[str]) -> dict[str, str]:
  """Returns package -> version found, '' for none, of what is not met."""
  from packaging import markers, requirements  # Not there on every machine.

  result = {}
  for need in needs:
    one = requirements.Requirement(need)
    environment: Any = markers.default_environment() | {'extra': ''}
    if one.marker and not one.marker.evaluate(environment):
      continue
    found = _version(one.name)
    if not found or not one.specifier.contains(found, prereleases=True):
      result[one.name] = found
    elif one.extras and not _plugin(one.extras):
      result[one.name] = ''
  return result


def _plugin(extras: Iterable[str]) -> bool:
  """Whether the packages behind jax[tpu], jax[cuda12] ... are there."""
  packages = {
    'tpu': 'libtpu',
    'cuda12': 'jax-cuda12-plugin',
    'cuda13': 'jax-cuda13-plugin',
  }
  return all(_version(packages[extra]) for extra in extras)


def probe() -> dict[str, Any]:
  """Returns JAX's version, backend and kinds of devices, or an 'error'."""
  try:
    done = subprocess.run(
      [sys.executable, '-c', _PROBE],
      capture_output=True,
      text=True,
      timeout=_TIMEOUT,
    )
  except subprocess.TimeoutExpired:
    return {'error': f'JAX has found no devices within {_TIMEOUT} s'}
  if done.returncode == 0:
    return json.loads(done.stdout.strip().splitlines()[-1])
  said = done.stderr.strip().splitlines() or [f'status {done.returncode}']
  return {'error': said[-1]}


def devices(
  seen: Mapping[str, Any], there: Mapping[str, str], platforms: str
) -> Iterator[Line]:
  """Yields what JAX runs on, and whether an accelerator goes unused.

  Args:
    seen: from `probe`.
    there: from `accelerators`.
    platforms: the variable JAX_PLATFORMS, '' if it is not set.
  """
  if 'error' in seen:
    yield missing('JAX', seen['error'], "python -m pip install -U 'jax[cpu]'")
    return
  kinds = seen['kinds']
  counted = ', '.join(f'{kinds.count(k)} x {k}' for k in dict.fromkeys(kinds))
  yield ok('JAX', f'{seen["version"]} on {seen["backend"]}: {counted}')
  if seen['backend'] != 'cpu':
    return
  for name, extra in there.items():
    found = f'seems to be there, but JAX runs on the CPU ({name})'
    if platforms:
      found += f': JAX_PLATFORMS={platforms} says so'
      yield warn('accelerator', found, 'unset JAX_PLATFORMS')
    else:
      command = f'python -m pip install {_ourselves(extra)}'
      yield warn('accelerator', found, command)


def machine(
  data_dir: pathlib.Path, shared: pathlib.Path = pathlib.Path('/dev/shm')
) -> Iterator[Line]:
  """Yields cores, memory, open files and the room where data sets lie."""
  pages = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  yield ok('machine', f'{os.cpu_count()} cores, {pages / 2**30:.0f} GiB memory')
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  line = f'{soft:,} in a process, {hard:,} if it asks, as a run does'
  yield ok('open files', line) if hard >= 1024 else warn('open files', line)
  if shared.is_dir():
    free = shutil.disk_usage(shared).free
    line = f'{free / 1e9:.2f} GB of shared memory at {shared}'
    rest = (
      f'; the full recipes take up to {_SHARED / 1e9:.1f} GB, with less their'
      ' batches come through pipes, which is slower: see docs/cluster.md'
    )
    yield (
      ok('batches', line) if free >= _SHARED else warn('batches', line + rest)
    )
  place = data_dir
  while not place.exists() and place != place.parent:
    place = place.parent
  free = shutil.disk_usage(place).free / 1e9
  line = f'{free:,.0f} GB free at {place}'
  yield (
    ok('disk', line)
    if free > sum(_DISK.values())
    else warn(
      'disk',
      f'{line}; about what each stage needs: '
      + ', '.join(f'{what} {size} GB' for what, size in _DISK.items())
      + '. What to leave out: "Disk" in README.md',
    )
  )
