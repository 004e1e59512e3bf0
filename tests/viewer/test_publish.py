"""The page in a folder: whole, and in need of nothing else."""

import json
import re

import pytest

from pinpp_jax import tools
from pinpp_jax.errors import UserError
from pinpp_jax.viewer import publish
from pinpp_jax.viewer.query import Query


def data(folder):
  text = (folder / 'index.html').read_text()
  return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


def test_a_folder_holds_all_it_shows(built_set, tmp_path):
  folder = tmp_path / 'site'
  number = publish.publish(built_set, folder, Query(wnid='n99000001'), 7)
  found = data(folder)
  assert number == len(found['images']) == 7
  named = {place for one in found['images'] for place in one['files'].values()}
  there = {
    str(path.relative_to(folder))
    for path in folder.rglob('*')
    if path.is_file()
  }
  assert there == named | {'index.html'}
  assert {one['label'] for one in found['images']} == {0}
  for one in found['images']:
    image = (folder / one['files']['image']).read_bytes()
    assert image == built_set.picture(one['id']).image
  text = (folder / 'index.html').read_text()
  assert str(tmp_path.parent) not in text  # Nothing of this machine.
  assert built_set.folder not in text
  assert not re.search(r'(src|href)="(https?:)?//', text)


def test_what_is_there_is_left_alone(built_set, tmp_path):
  (tmp_path / 'mine').write_text('kept')
  with pytest.raises(UserError, match='there already'):
    publish.publish(built_set, tmp_path, Query(), 3)
  assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_a_failure_leaves_nothing(built_set, tmp_path, monkeypatch):
  def fail(*_):
    raise OSError('the disk is full')

  monkeypatch.setattr(publish.thumbnails, 'parts', fail)
  with pytest.raises(OSError):
    publish.publish(built_set, tmp_path / 'site', Query(), 3)
  assert list(tmp_path.iterdir()) == []


def test_the_tool_publishes_what_an_address_selects(
  mini_data, tmp_path, capsys
):
  words = ['view', 'pinpp_mini', f'--data_dir={mini_data}', '--images=4']
  select = '--select=#concept=wheel&split=train&opacity=40'
  assert tools.main([*words, select, f'--output={tmp_path / "a"}']) == 0
  assert 'index.html: 4 images' in capsys.readouterr().out
  classes = data(tmp_path / 'a')['about']['classes']
  names = {one['name'] for one in classes if one['images']}
  assert names <= {'wagon', 'bicycle'}


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['nowhere'], 'Data set'),
    (['pinpp_mini', '--select=color=red', '--output=x'], 'no filter'),
    (['pinpp_mini', '--select=nonsense', '--output=x'], 'no filter'),
    (['pinpp_mini', '--select=class=n0', '--output=x'], 'n0'),
    (['pinpp_mini', '--images=0', '--output=x'], '--images'),
    (['pinpp_mini', '--port=99999999'], 'port'),
    (['pinpp_mini', '--truth=nowhere'], 'nowhere'),
  ],
)
def test_mistakes_are_one_line(
  mini_data, words, message, capsys, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  assert tools.main(['view', *words, f'--data_dir={mini_data}']) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1
  assert list(tmp_path.iterdir()) == []
