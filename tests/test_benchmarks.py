"""The benchmarks run in their quick form and print what they promise."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
  ('name', 'line'),
  [
    ('parts_loss', 'x as fast and needs'),
    ('cpu_layers', 'x as fast'),
    ('cpu_convolutions', 'pointwise'),
    ('train_step', 'adversarial / clean:'),
    ('segmenter', 'class known, 3,308 parts against class known, 30 parts:'),
    ('autoattack', 'standard'),
    ('row_sums', 'one axis:'),
    ('viewer', 'first page'),
    ('race', 'compiled after warm-up: 0'),
    ('input', 'images/s of a core'),
    ('scaling', 'A MODEL, not measured'),
    ('host_memory', 'MPM clean: '),
  ],
)
def test_quick_form(name, line):
  opponents = {
    'autoattack': ('torch', 'pyautoattack'),
    'race': ('torch',),
    'host_memory': ('torch',),
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
