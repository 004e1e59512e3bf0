"""Every module can be imported, by itself, on every supported set."""

import importlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELEASE = ROOT / 'datasets' / 'pinpp' / 'dummy_data'
MODULES = [
  '.'.join(path.relative_to(ROOT).with_suffix('').parts)
  for folder in ('pinpp_jax', 'configs', 'benchmarks')
  for path in sorted((ROOT / folder).rglob('*.py'))
  if path.stem not in ('__init__', '__main__')
]
# What benchmarks measure against is in an extra; nothing else needs it.
OPPONENTS = ('torch', 'pyautoattack')


@pytest.mark.parametrize('name', MODULES)
def test_import(name):
  try:
    importlib.import_module(name)
  except ModuleNotFoundError as error:
    if error.name not in OPPONENTS or not name.startswith('benchmarks.'):
      raise
    pytest.skip(f'{error.name} is not installed.')


# Slow to import, and nothing that these commands need.
HEAVY = {
  'flax',
  'grain',
  'jax',
  'matplotlib',
  'orbax',
  'tensorboardX',
  'torch',
}


@pytest.mark.parametrize('words', [['--help'], ['labels', str(RELEASE)]])
def test_small_tools_import_little(words):
  program = (
    'import sys; from pinpp_jax import tools\n'
    f'status = tools.main({words!r})\n'
    'print(*{name.split(".")[0] for name in sys.modules}, file=sys.stderr)\n'
    'sys.exit(status)'
  )
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, cwd=ROOT
  )
  assert done.returncode == 0, done.stderr
  loaded = set(done.stderr.split())
  assert 'pinpp_jax' in loaded and not loaded & HEAVY
