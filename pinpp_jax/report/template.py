"""Rendering of templates into self-contained pages."""

import os
import pathlib
from typing import Any

import jinja2

from pinpp_jax.data import files


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
