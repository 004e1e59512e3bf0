"""Turns a config section into an object: the whole configuration mechanism."""

from collections.abc import Callable, Mapping
import inspect
from typing import Any

from pinpp_jax.errors import UserError

# A ConfigDict; Any, because by its annotations a section may be a number.
Config = Any


def construct(
  table: Mapping[str, Callable[..., Any]],
  section: Mapping[str, Any],
  **extra: Any,
) -> Any:
  """Calls `table[section['name']]` with the rest of the section as keywords.

  Args:
    table: From a name to a class or function.
    section: Config section with a `name`; its other fields are the keywords.
    **extra: Keywords only known at run time (the model, the data, ...); a
      target gets those that it names.

  Raises:
    UserError: If the name is not in the table, or a field is not a keyword of
      the named class or function.
  """
  keywords = dict(section)
  name = keywords.pop('name', None)
  if name not in table:
    raise UserError(f'name={name!r} is not one of {sorted(table)}.')
  target = table[name]
  known = inspect.signature(target).parameters
  unknown = sorted(set(keywords) - set(known))
  if unknown:
    fields = sorted(set(known) - set(extra) - {'parent'})
    raise UserError(f'{name} has no field {unknown}; its fields are {fields}.')
  wanted = {key: value for key, value in extra.items() if key in known}
  return target(**keywords, **wanted)
