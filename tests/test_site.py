"""The pages as a site: whole, and in need of nothing from elsewhere."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

pytest.importorskip('material', reason='the extra docs is not installed')

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What a browser fetches by itself, as opposed to what a reader may click.
FETCHED = re.compile(
  r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(https?:)?//'
  r'|<link\b[^>]*\brel="(?:stylesheet|preconnect|icon)"[^>]*href="(https?:)?//'
  r'|url\(["\']?(?:https?:)?//'
)


def build(folder, *options):
  """Returns (exit status, what was said) of a build without tolerance."""
  done = subprocess.run(
    [sys.executable, '-m', 'mkdocs', 'build', '--strict', '-d', folder]
    + list(options),
    cwd=ROOT,
    env=os.environ | {'NO_MKDOCS_2_WARNING': '1'},
    capture_output=True,
    text=True,
    check=False,
  )
  return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  folder = tmp_path_factory.mktemp('site')
  status, said = build(folder)
  assert status == 0, said
  return folder


def test_every_page_is_there(site):
  for page in (ROOT / 'docs').glob('*.md'):
    name = '' if page.stem == 'index' else page.stem
    assert (site / name / 'index.html').is_file(), page


def test_files_outside_docs_are_pages_too(site):
  page = (site / 'reading' / 'index.html').read_text()
  assert 'href="../repository/pinpp_jax/step.py/"' in page
  code = site / 'repository' / 'pinpp_jax' / 'step.py' / 'index.html'
  assert 'train_step' in code.read_text()
  notebook = site / 'repository' / 'notebooks' / '2_train_mpm.ipynb'
  assert 'Train MPM' in (notebook / 'index.html').read_text()
  rules = (site / 'repository' / 'CONTRIBUTING' / 'index.html').read_text()
  assert 'href="../../architecture/"' in rules


def test_nothing_is_fetched_from_elsewhere(site):
  files = [*site.rglob('*.html'), *site.rglob('*.css')]
  assert len(files) > 10
  for file in files:
    assert not FETCHED.search(file.read_text()), file
