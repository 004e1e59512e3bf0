"""What a command line changes in a recipe, checked before a run starts."""

import ast
from collections.abc import Callable, Iterator, Sequence
import math
import pathlib
import re
import runpy
from typing import Any

from ml_collections import config_dict

from pinpp_jax.errors import UserError

_OVERRIDE = re.compile(r'--?config\.([\w.]+)(?:=(.*))?', re.DOTALL)


def check(arguments: Sequence[str]) -> None:
  """Checks the fields of a recipe that a command line sets.

  Says nothing about a recipe that cannot be loaded: loading it says why.

  Raises:
    UserError: The recipe has no such field, or it is text and None is given;
      names the field and those beside it.
  """
  recipe = _recipe(arguments)
  if recipe is None:
    return
  for path, value in _overrides(arguments):
    before = _field(recipe, path)
    if isinstance(before, str) and value == 'None':
      raise UserError(
        f'--config.{path}=None: the field is text, {before!r} in the recipe;'
        f" '' is none."
      )
    if isinstance(before, tuple):
      _check_tuple(path, value)


def _recipe(arguments: Sequence[str]) -> Any | None:
  """Returns the recipe without what the command line changes."""
  for i, word in enumerate(arguments):
    flag, _, value = word.partition('=')
    if flag in ('--config', '-config'):
      named = value or ''.join(arguments[i + 1 : i + 2])
      path, _, variant = named.partition(':')
      if not pathlib.Path(path).is_file():
        return None
      try:
        make = runpy.run_path(path)['get_config']
        return make(variant) if variant else make()
      except Exception:
        return None
  return None


def _overrides(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
  """Yields (path of the field, text of its value) of what is set."""
  following = [*arguments[1:], '']
  for word, after in zip(arguments, following, strict=True):
    if match := _OVERRIDE.fullmatch(word):
      yield match[1], after if match[2] is None else match[2]


def _field(recipe: Any, path: str) -> Any:
  """Returns a field's value in the recipe.

  Raises:
    UserError: There is no such field.
  """
  section, here = recipe, 'the recipe'
  for name in path.split('.'):
    if not isinstance(section, config_dict.ConfigDict):
      raise UserError(f'--config.{path}: {here} is a value, not a section.')
    if name not in section:
      raise UserError(
        f'--config.{path}: {here} has no field {name!r}; it has'
        f' {", ".join(sorted(section))}.'
      )
    section, here = section[name], name
  return section


def _check_tuple(path: str, value: str) -> None:
  """Raises UserError unless a tuple has its length and order."""
  if path not in _TUPLES:
    return
  fine, wanted = _TUPLES[path]
  try:
    found = ast.literal_eval(value)
    if fine(found):
      return
  except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
    pass
  raise UserError(f'--config.{path}={value}: must be {wanted}.')


def _rising(pair: Any, low: float, high: float) -> bool:
  return (
    isinstance(pair, tuple | list)
    and len(pair) == 2
    and all(type(x) in (int, float) and math.isfinite(x) for x in pair)
    and low <= pair[0] <= pair[1] <= high
  )


# Path of a field -> whether a value is right, and what it must be.
_TUPLES: dict[str, tuple[Callable[[Any], bool], str]] = {
  'data.scale': (
    lambda pair: _rising(pair, 0, 1) and pair[1] > 0,
    'two shares of an area between 0 and 1, the smaller first',
  ),
  'profile': (
    lambda pair: pair == () or _rising(pair, 0, math.inf),
    'a first and a last step, or () for none',
  ),
}
