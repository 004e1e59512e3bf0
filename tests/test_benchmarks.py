"""The benchmarks run in their quick form and print what they promise."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def slow(name, line):
  return pytest.param(name, line, marks=pytest.mark.slow)


@pytest.mark.parametrize(
  ('name', 'line'),
  [
    ('pieces.parts_loss', 'x as fast and needs'),
    ('pieces.cpu_layers', 'x as fast'),
    ('pieces.cpu_convolutions', 'pointwise'),
    ('pieces.cpu_accuracy', 'all cores'),
    ('pieces.row_sums', 'one axis:'),
    ('viewer', 'first page'),
    ('input', 'images/s of a core'),
    ('scaling', 'A MODEL, not measured'),
    slow('train_step', 'adversarial / clean:'),
    slow('segmenter', 'class known, 3,308 parts against class known, 30 parts'),
    slow('autoattack', 'standard'),
    slow('race', 'compiled after warm-up: 0'),
    slow('pieces.host_memory', 'MPM clean: '),
  ],
)
def test_quick_form(name, line):
  opponents = {
    'autoattack': ('torch', 'pyautoattack'),
    'race': ('torch',),
    'pieces.host_memory': ('torch',),
  }
  for opponent in opponents.get(name, ()):
    pytest.importorskip(opponent)
  done = subprocess.run(
    [sys.executable, '-m', f'benchmarks.{name}', '--quick'],
    cwd=ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert line in done.stdout
