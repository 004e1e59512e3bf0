"""What the pages show runs."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).resolve().parent.parent / 'docs/robustness.md'
BLOCKS = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.S)


@pytest.mark.slow
@pytest.mark.parametrize('number', range(len(BLOCKS)))
def test_examples_of_the_robustness_page_run(number, capsys):
  exec(compile(BLOCKS[number], f'{PAGE.name}, example {number}', 'exec'), {})
  assert 'After apgd-t: robust accuracy' in capsys.readouterr().out


def test_an_evaluation_of_ones_own_takes_fifteen_lines():
  lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
  assert len(lines) <= 15 and 'equinox' in BLOCKS[0]
