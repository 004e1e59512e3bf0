"""The command `pinpp export`."""

import json

import pytest

from pinpp_jax import exports, tools
from pinpp_jax.tools import export


def test_every_format_can_be_asked_for(mini_data, tmp_path, capsys):
  more = {
    'coco': ['--kind=both', '--lvis', '--splits=train,test'],
    'reference': ['--masks_only'],
    'webdataset': ['--shard_mb=1'],
  }
  for form in exports.FORMATS:
    words = [form, 'pinpp_mini', f'--data_dir={mini_data}']
    words += [f'--output={tmp_path / form}', *more.get(form, ['--splits=test'])]
    assert tools.main(['export', *words]) == 0
    assert f'wrote {tmp_path / form}: ' in capsys.readouterr().out
    # The second time it says what to do, and touches nothing.
    assert tools.main(['export', *words]) == 2
    assert 'Name another folder' in capsys.readouterr().err
  assert not list(tmp_path.glob('reference/*/img'))
  facts = json.loads((tmp_path / 'coco/export.json').read_text())
  assert list(facts['images']) == ['train', 'test']
  assert facts['options'] == {'kind': 'both', 'lvis': True}


def test_mistakes_end_in_one_line(mini_data, tmp_path, capsys):
  mistakes = {
    'no_such_set': "Data set 'no_such_set' was not found",
    'pinpp_mini --splits=val': "no split 'val'",
    'pinpp_mini pinpp_mini': 'is in both',
  }
  for words, message in mistakes.items():
    rest = [f'--data_dir={mini_data}', f'--output={tmp_path / "out"}']
    assert export.main(['parquet', *words.split(), *rest]) == 2
    error = capsys.readouterr().err
    assert error.startswith('pinpp export: ') and message in error
    assert error.count('\n') == 1
  with pytest.raises(SystemExit):
    export.main(['coco', 'pinpp_mini', '--output=x', '--kind=things'])
  assert not list(tmp_path.iterdir())
