"""Links from pages to files outside docs/, on the site as on GitHub.

A page links to any file of the repository by its relative path, such as
../CONTRIBUTING.md or ../pinpp_jax/step.py. GitHub follows that by itself. For
the site this hook of MkDocs makes a page of every file that is linked to, below
repository/, and turns the links there.
"""

import json
import os
import pathlib
import re
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = 'repository/'
_LINK = re.compile(r'(?<=\]\()([^)#:\s]+)(?=[)#])')
_BADGE = re.compile(r'\[!\[([^]]*)\]\([^)]*\)\]')


def on_files(files: Files, config: Any, **_: Any) -> Files:
  """Adds a page for every file outside docs/ that a page links to."""
  waiting = {
    path
    for file in files.documentation_pages()
    for path in outside(f'docs/{file.src_uri}', file.content_string)
  }
  added: set[str] = set()
  while waiting:
    path = waiting.pop()
    added.add(path)
    text = content(path)
    files.append(
      File.generated(
        config,
        page_of(path),
        content=text,
        inclusion=InclusionLevel.NOT_IN_NAV,
      )
    )
    waiting |= outside(path, text) - added
  return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
  """Turns links to files of the repository to their pages."""
  here = page.file.src_uri
  inside = not here.startswith(FOLDER)
  source = f'docs/{here}' if inside else here.removeprefix(FOLDER)
  folder = os.path.dirname(here)

  def turned(match: re.Match[str]) -> str:
    path = target(source, match[0])
    return os.path.relpath(page_of(path), folder) if path else match[0]

  return _LINK.sub(turned, markdown)


def outside(source: str, text: str) -> set[str]:
  """Returns the files outside docs/ that a file of the repository links to."""
  found = {target(source, link) for link in _LINK.findall(text)}
  return {path for path in found if path and not path.startswith('docs/')}


def target(source: str, link: str) -> str:
  """Returns the path in the repository that a link leads to, '' if none."""
  if not source.endswith(('.md', '.ipynb')):
    return ''
  path = os.path.normpath(os.path.join(os.path.dirname(source), link))
  return path if (ROOT / path).is_file() else ''


def page_of(path: str) -> str:
  """Returns where the site has a file of the repository, from docs/."""
  if path.startswith('docs/'):
    return path.removeprefix('docs/')
  return FOLDER + (path if path.endswith('.md') else f'{path}.md')


def content(path: str) -> str:
  """Returns a file of the repository as a page."""
  text = (ROOT / path).read_text(encoding='utf-8')
  if path.endswith('.md'):
    return text
  if path.endswith('.ipynb'):
    return notebook(text)
  return f'# {path}\n\n{fenced(text, path.rpartition(".")[2])}'


def notebook(text: str) -> str:
  """Returns a notebook's cells as a page; a badge is a link of its text."""
  cells = []
  for cell in json.loads(text)['cells']:
    source = ''.join(cell['source'])
    code = cell['cell_type'] == 'code'
    cells.append(fenced(source, 'python') if code else source)
  return _BADGE.sub(r'[\1]', '\n\n'.join(cells))


def fenced(text: str, language: str) -> str:
  """Returns code as a block."""
  return f'````{language}\n{text.rstrip()}\n````\n'
