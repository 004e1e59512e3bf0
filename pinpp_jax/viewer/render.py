"""The page itself: one file with its style and its program inside."""

import json
import pathlib
from typing import Any

import jinja2

from pinpp_jax.viewer import page_json
from pinpp_jax.viewer.catalogue import Catalogue

_HERE = pathlib.Path(__file__).resolve().parent


def live(catalogue: Catalogue) -> str:
  """Returns a page that asks the server for what it shows."""
  return _render(page_json.about(catalogue), None)


def still(about: dict[str, Any], images: list[dict[str, Any]]) -> str:
  """Returns a page that holds what it shows.

  Args:
    about: See `page_json.about`.
    images: See `page_json.detail`, each with the addresses of its files.
  """
  return _render(about, images)


def _render(about: dict[str, Any], images: list[dict[str, Any]] | None) -> str:
  # By folder: the report's package would bring in what trains networks.
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader([_HERE / 'page', _HERE.parent / 'report']),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template('viewer.html.j2').render(
    title=about['title'], data=_script({'about': about, 'images': images})
  )


def _script(value: Any) -> str:
  """Returns JSON that no text inside it can end early."""
  text = json.dumps(value, separators=(',', ':'))
  return text.replace('<', '\\u003c')
