"""What pages and notebooks say is so: commands, fields, links, steps."""

import importlib
import itertools
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from pinpp_jax import tools

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [
  ROOT / 'README.md',
  ROOT / 'CONTRIBUTING.md',
  *sorted((ROOT / 'docs').glob('*.md')),
]
NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))
BLOCK = re.compile(r'```(\w*)\n(.*?)```', re.S)
RECIPE = re.compile(r'\bconfigs/(?!NAME|mine)(\w+)\.py(?::([\w-]+))?')
FIELD = re.compile(r'--config\.([a-z][\w.]*[a-z0-9])=')
# The colour of a link, and where it leads without an address to lead to.
BADGE = 'https://colab.research.google.com/assets/colab-badge.svg'
ANYWHERE = 'https://colab.research.google.com/github/'


def named(page):
  return page.stem


def lines(page):
  """Returns a page's lines, commands over several of them joined."""
  return re.sub(r'\\\n\s*', ' ', page.read_text()).splitlines()


def recipe(name, variant=''):
  module = importlib.import_module(f'configs.{name}')
  return module.get_config(variant or 'full')


def has(config, field):
  """Whether a recipe has a field such as 'data.batch_size'."""
  *sections, name = field.split('.')
  for section in sections:
    if section not in config:
      return False
    config = config[section]
  return name in config


@pytest.mark.parametrize('page', PAGES, ids=named)
def test_recipes_and_their_fields_exist(page):
  names = {path.stem for path in (ROOT / 'configs').glob('*.py')} - {'base'}
  every = [recipe(name) for name in names]
  for line in lines(page):
    loaded = [
      recipe(*found) for found in RECIPE.findall(line) if found[0] != 'base'
    ]
    for field in FIELD.findall(line):
      assert any(has(one, field) for one in loaded or every), line


@pytest.mark.parametrize('page', PAGES, ids=named)
def test_tools_take_what_the_page_gives_them(page, capsys):
  for kind, block in BLOCK.findall('\n'.join(lines(page))):
    for line in block.splitlines():
      words = re.sub(r'^python -m pinpp_jax\.tools\.', 'pinpp ', line)
      if kind or not re.match(r'pinpp [a-z]+( |$)', words):
        continue
      name, *arguments = shlex.split(words, comments=True)[1:]
      assert name in tools.TOOLS, line
      options = [a for a in arguments if a.startswith('-')]
      before = itertools.takewhile(lambda a: not a.startswith('-'), arguments)
      # Help of a sub-command where there is one.
      with pytest.raises(SystemExit):
        tools.main([name, *before, '--help'])
      known = capsys.readouterr().out
      for option in options:
        assert re.search(rf'{option.split("=")[0]}\b', known), line


@pytest.mark.parametrize('page', PAGES, ids=named)
def test_links_to_files_lead_somewhere(page):
  text = BLOCK.sub('', page.read_text())
  for link in re.findall(r'\]\(([^):#\s]+)(?:#[^)]*)?\)', text):
    assert (page.parent / link).exists(), link


def test_a_data_set_of_ones_own_as_the_page_has_it(
  tmp_path, monkeypatch, capsys
):
  page = ROOT / 'docs' / 'your_own.md'
  monkeypatch.chdir(tmp_path)
  for kind, block in BLOCK.findall('\n'.join(lines(page))):
    if kind == 'python':
      exec(compile(block, page.name, 'exec'), {})
    for line in block.splitlines():
      words = shlex.split(line) if not kind else ['']
      if words[:1] == ['pinpp']:
        assert tools.main(words[1:]) == 0
      elif words[:1] == ['python']:
        _run(words[1:])
  said = capsys.readouterr().out
  assert '2 classes, 5 parts, 40 images, 100 masks' in said
  assert "['flag cloth', 'flag pole', 'flag star']" in said
  assert (tmp_path / 'runs' / 'mine' / 'report.html').is_file()
  _weights(tmp_path / 'runs' / 'mine')


def _run(arguments):
  """Runs a command of a page in the working folder."""
  arguments = [a.replace('=configs/', f'={ROOT}/configs/') for a in arguments]
  # Most of the time goes into compiling, for a few small steps.
  environment = {
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': str(ROOT),
    'XLA_FLAGS': '--xla_backend_optimization_level=0',
  }
  subprocess.run(
    [sys.executable, *arguments], env=os.environ | environment, check=True
  )


def _weights(run):
  """Exports a run's weights as the recipes' page has it."""
  page = ROOT / 'docs' / 'recipes.md'
  (block,) = (code for kind, code in BLOCK.findall(page.read_text()) if kind)
  exec(block.replace('runs/mpm-mini', str(run)), {})
  assert pathlib.Path('weights/mpm.safetensors').is_file()
  fields = json.loads(pathlib.Path('weights/config.json').read_text())
  assert (fields['model'], fields['num_parts']) == ('MPM', 5)


def cells(notebook):
  return json.loads(notebook.read_text())['cells']


def test_there_are_three_notebooks():
  assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=named)
def test_a_notebook_is_as_it_is_committed(notebook):
  metadata = json.loads(notebook.read_text())['metadata']
  assert metadata['accelerator'] == 'TPU'
  assert metadata['colab']['gpuType'] == 'V5E1'
  for cell in cells(notebook):
    if cell['cell_type'] == 'code':
      assert not cell['outputs'] and cell['execution_count'] is None


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=named)
def test_a_notebook_finds_the_project(notebook):
  """CITATION.cff alone says where the project is."""
  citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
  address = citation.get('repository-code', '')
  link = ANYWHERE
  if address:
    owner_and_name = address.removeprefix('https://github.com/')
    link += f'{owner_and_name}/blob/main/notebooks/{notebook.name}'
  title, setup, *_ = (''.join(cell['source']) for cell in cells(notebook))
  assert title.startswith(f'[![Open in Colab]({BADGE})]({link})\n')
  assert f"\nREPOSITORY = '{address}'  # @param" in setup
  first = ''.join(cells(NOTEBOOKS[0])[1]['source'])
  assert setup == first
