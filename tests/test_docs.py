"""What the pages show runs."""

import ast
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from pinpp_jax import tools

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / 'docs/robustness.md'
EXPORTS = (ROOT / 'docs/export.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.S)


@pytest.mark.slow
@pytest.mark.parametrize('number', range(len(BLOCKS)))
def test_examples_of_the_robustness_page_run(number, capsys):
  exec(compile(BLOCKS[number], f'{PAGE.name}, example {number}', 'exec'), {})
  assert 'After apgd-t: robust accuracy' in capsys.readouterr().out


def test_an_evaluation_of_ones_own_takes_fifteen_lines():
  lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
  assert len(lines) <= 15 and 'equinox' in BLOCKS[0]


def test_commands_and_examples_of_the_export_page_run(
  mini_data, tmp_path, monkeypatch
):
  import datasets

  monkeypatch.setenv('TFDS_DATA_DIR', str(mini_data))
  monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path / 'cache')
  monkeypatch.chdir(tmp_path)
  commands = re.findall(r'^pinpp (export .*)$', EXPORTS, re.M)
  assert len(commands) == 5
  for command in commands:
    assert tools.main(shlex.split(command)) == 0
  for block in re.findall(r'```python\n(.*?)```', EXPORTS, re.S):
    if 'torch' not in block:
      exec(compile(block, 'export.md', 'exec'), {})
      continue
    # Its loader forks, which a process that has used JAX must not.
    check = 'print(*images.shape, *parts.shape, len(labels), int(parts.max()))'
    found = subprocess.run(
      [sys.executable, '-c', f'{block}\n{check}'],
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      capture_output=True,
      text=True,
    )
    assert found.returncode == 0, found.stderr
    *sizes, largest = map(int, found.stdout.split())
    assert sizes == [8, 3, 224, 224, 8, 224, 224, 8] and 0 < largest <= 47


FAULTS = [
  line.strip('| ').split(' | ')
  for line in (ROOT / 'docs/reliability.md').read_text().splitlines()
  if line.startswith('| ') and '`tests/' in line
]


@pytest.mark.parametrize('row', FAULTS, ids=lambda row: row[0])
def test_every_fault_of_the_reliability_page_is_tested(row):
  fault, produced, promised, tests = row
  assert fault and produced and promised
  named = re.findall(r'`(tests/[\w/]+\.py)::(\w+)`', tests)
  assert named
  for path, name in named:
    tree = ast.parse((ROOT / path).read_text())
    assert name in {
      node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    }
