"""Rendering of templates into self-contained pages."""

import os
import pathlib
from typing import Any
from urllib import parse

import jinja2

from pinpp_jax.data import files


def link(target: pathlib.Path, page: pathlib.Path) -> str:
  """Returns the address of a file as a page beside it links to it.

  Args:
    target: The file.
    page: The page that links.

  Returns:
    A relative address. It begins with './' or '../' and is escaped, so that no
    name of a folder is taken for a scheme such as 'javascript:'.
  """
  relative = pathlib.PurePath(
    os.path.relpath(target.resolve(), page.resolve().parent)
  ).as_posix()
  dotted = relative if relative.startswith('../') else f'./{relative}'
  return parse.quote(os.fsencode(dotted))


def write(
  path: str | os.PathLike[str],
  name: str,
  *,
  package: str = 'pinpp_jax.report',
  **values: Any,
) -> pathlib.Path:
  """Renders a template into a file, atomically, and returns its path.

  Args:
    path: Of the page.
    name: Of the template; it may include those of `pinpp_jax.report`, such as
      `style.css`.
    package: Package that has the template.
    **values: Its variables; a missing one is an error.
  """
  packages = dict.fromkeys((package, 'pinpp_jax.report'))
  environment = jinja2.Environment(
    loader=jinja2.ChoiceLoader(
      [jinja2.PackageLoader(place, '.') for place in packages]
    ),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  return files.write(path, environment.get_template(name).render(**values))
