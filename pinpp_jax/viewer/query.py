"""Which images are asked for, and in which order."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.release import concepts
from pinpp_jax.errors import UserError
from pinpp_jax.viewer.columns import SOURCES, Rows

PAGE = 60  # Images of one page, unless another number is asked for.
_MOST = 500
ORDERS = ('', 'confidence', 'agreement')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Query:
  """What is asked for; an empty field asks for everything.

  Attributes:
    wnid: The class.
    part: Global id of a part that can be seen.
    concept: Class-free name of a part that can be seen.
    split: Name of the split.
    source: Who drew the mask.
    low: Smallest confidence.
    high: Largest confidence.
    discarded: 'yes' or 'no'.
    find: In the file name or the name of the class, whatever the case.
    order: 'confidence' or 'agreement', the least first.
    page: From 1.
    count: Images of a page.
  """

  wnid: str = ''
  part: int = 0
  concept: str = ''
  split: str = ''
  source: str = ''
  low: float = 0.0
  high: float = 1.0
  discarded: str = ''
  find: str = ''
  order: str = ''
  page: int = 1
  count: int = PAGE

  @property
  def needs_details(self) -> bool:
    """Whether it asks for something that only a look at an image tells."""
    return bool(
      self.part
      or self.concept
      or self.source
      or self.order
      or self.low > 0
      or self.high < 1
    )


# The fields of an address, and what else one may hold: how things look.
FIELDS = tuple(
  'class' if field.name == 'wnid' else field.name
  for field in dataclasses.fields(Query)
)
SHOWN = ('image', 'view', 'hide', 'opacity', 'parts', 'statistics')


def parse(
  fields: Mapping[str, Sequence[str]],
  table: LabelTable,
  splits: Sequence[str],
) -> Query:
  """Returns what the fields of an address ask for; `class` is the wnid.

  Raises:
    UserError: a field is unknown, given twice or of another form.
  """
  values: dict[str, Any] = {}
  for name, given in fields.items():
    if name not in FIELDS:
      raise UserError(f'{name!r} is no field of a query')
    if len(given) != 1:
      raise UserError(f'{name} is given {len(given)} times')
    field = 'wnid' if name == 'class' else name
    values[field] = _FORMS.get(field, _text)(name, given[0])
  query = Query(**values)
  _one_of('split', query.split, splits)
  _one_of('source', query.source, SOURCES)
  _one_of('discarded', query.discarded, ('yes', 'no'))
  _one_of('order', query.order, ORDERS)
  if query.wnid:
    table.class_index(query.wnid)
  if query.part > table.num_parts:
    raise UserError(f'part={query.part}: there are {table.num_parts} parts')
  return query


def _text(name: str, value: str) -> str:
  if len(value) > 200 or not value.isprintable():
    raise UserError(f'{name} is no line of at most 200 characters')
  return value


def _whole(low: int, high: int) -> Callable[[str, str], int]:
  def number(name: str, value: str) -> int:
    digits = value.isascii() and value.isdecimal() and len(value) < 12
    if not digits or not low <= int(value) <= high:
      raise UserError(f'{name} is no whole number from {low} to {high}')
    return int(value)

  return number


def _share(name: str, value: str) -> float:
  try:
    number = float(value)
  except ValueError:
    number = math.nan
  if not 0 <= number <= 1:
    raise UserError(f'{name} is no number from 0 to 1')
  return number


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
  if value and value not in allowed:
    raise UserError(f'{name}={value!r} is none of {", ".join(allowed)}')


_FORMS: dict[str, Callable[[str, str], Any]] = {
  'part': _whole(0, 10**9),
  'page': _whole(1, 10**9),
  'count': _whole(1, _MOST),
  'low': _share,
  'high': _share,
}


def select(
  rows: Rows,
  query: Query,
  table: LabelTable,
  splits: Sequence[str],
  done: int,
) -> np.ndarray:
  """Returns the places of all rows that fit, in the order asked for: int64.

  Where details are asked for, only the first `done` rows can fit, those whose
  details are known.
  """
  number = done if query.needs_details else len(rows)
  label = rows.label[:number]
  fits = np.ones(number, np.bool_)
  if query.wnid:
    fits &= label == table.class_index(query.wnid)
  if query.split:
    fits &= rows.split[:number] == splits.index(query.split)
  if query.discarded:
    fits &= rows.discarded[:number] == (query.discarded == 'yes')
  if query.source:
    fits &= rows.source[:number] == SOURCES.index(query.source)
  if query.low > 0 or query.high < 1:
    confidence = rows.confidence[:number]
    fits &= (confidence >= query.low) & (confidence <= query.high)
  if query.part or query.concept:
    wanted = parts(query, table)
    fits &= ((rows.areas[:number] > 0) & wanted[label]).any(1)
  if query.find:
    fits &= _found(rows.names[:number], label, query.find, table)
  places = np.flatnonzero(fits)
  if query.order:
    column = getattr(rows, query.order)[places]
    places = places[np.argsort(column, kind='stable')]  # NaN comes last.
  return places


def parts(query: Query, table: LabelTable) -> np.ndarray:
  """Returns which parts are asked for: bool (classes, largest number)."""
  wanted = np.zeros((table.num_classes, table.max_parts), np.bool_)
  for part in table.parts:
    named = part.global_id == query.part
    if named or (query.concept and concepts.of_part(part) == query.concept):
      wanted[table.class_index(part.wnid), part.local_index - 1] = True
  return wanted


def _found(
  names: Sequence[str], label: np.ndarray, words: str, table: LabelTable
) -> np.ndarray:
  words = words.casefold()
  in_object = np.array(
    [words in name.casefold() for name in table.object_names], np.bool_
  )
  in_name = (words in name.casefold() for name in names)
  return in_object[label] | np.fromiter(in_name, np.bool_, len(names))
