"""Every module can be imported, by itself, on every supported set."""

import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODULES = [
  '.'.join(path.relative_to(ROOT).with_suffix('').parts)
  for folder in ('pinpp_jax', 'configs', 'benchmarks')
  for path in sorted((ROOT / folder).rglob('*.py'))
  if path.stem != '__init__'
]
# What measures against PyTorch needs it; nothing else does.
OPPONENTS = {
  'benchmarks.autoattack': ('torch', 'pyautoattack'),
  'benchmarks.autoattack_agreement': ('torch', 'pyautoattack'),
  'benchmarks.autoattack_precision': ('torch', 'pyautoattack'),
  'benchmarks.torch_resnet': ('torch',),
}


@pytest.mark.parametrize('name', MODULES)
def test_import(name):
  for package in OPPONENTS.get(name, ()):
    pytest.importorskip(package)
  importlib.import_module(name)
