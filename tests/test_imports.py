"""Every module can be imported, by itself, on every supported set."""

import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
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
