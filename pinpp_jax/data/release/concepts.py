"""Class-free names of parts, the same for every spelling: concepts.

A part's generic name ('legs' of 'table legs') is what the release writes.
`concepts.csv` beside this file says which of them are spellings of one concept
and why; what it does not list is its own concept. The list is ours, meant to be
reviewed, and made from names known to occur and from common plurals: it is not
complete. Words that only look alike are never merged by a rule ('glass' is no
plural), nor are sides ('left door' is not 'door'). Nothing is numbered by
concepts; a part is told by its class and exact name.
"""

from collections.abc import Iterable, Sequence
import csv
import dataclasses
import functools
import importlib.resources

from pinpp_jax.data.labels import LabelTable, Part
from pinpp_jax.data.release.nesting import normal
from pinpp_jax.data.release.records import Annotation

REASONS = ('plural', 'spelling', 'typing error', 'punctuation', 'filler')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One line of the list: a spelling, its concept ('' for none), and why."""

  name: str
  concept: str
  why: str


@functools.cache
def rows() -> tuple[Row, ...]:
  """Returns the list as it is written."""
  path = importlib.resources.files('pinpp_jax.data.release') / 'concepts.csv'
  lines = path.read_text(encoding='utf-8').splitlines()
  return tuple(Row(**line) for line in csv.DictReader(lines))


@functools.cache
def _table() -> dict[str, str]:
  return {row.name: row.concept for row in rows()}


def concept(generic_name: str) -> str:
  """Returns the concept of a generic name; '' for words such as 'others'."""
  name = normal(generic_name)
  return _table().get(name, name)


def whole(part: Part) -> bool:
  """Whether a part is named like its object: a mask of the whole object."""
  return normal(part.name) == normal(part.object_name)


def of_part(part: Part) -> str:
  """Returns a part's concept; '' for a whole object and for fillers.

  Without its class a mask of the whole object is no part any more.
  """
  return '' if whole(part) else concept(part.generic_name)


def of_regions(
  regions: Iterable[Annotation], parts: Sequence[Part]
) -> dict[str, list[Annotation]]:
  """Returns the regions of each concept of an image; those of '' have none.

  Args:
    regions: of the image.
    parts: of its class, in the order of their local indices.
  """
  found: dict[str, list[Annotation]] = {}
  for region in regions:
    found.setdefault(of_part(parts[region.part - 1]), []).append(region)
  return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Concept:
  """All parts of one concept.

  `spellings` are their generic names in one case, sorted; `masks` counts
  annotations.
  """

  name: str
  parts: tuple[Part, ...]
  spellings: tuple[str, ...]
  masks: int

  @property
  def classes(self) -> int:
    """How many classes have such a part."""
    return len({part.wnid for part in self.parts})


def of_table(table: LabelTable) -> list[Concept]:
  """Returns the concepts of a table, the one of most classes first."""
  groups: dict[str, list[Part]] = {}
  for part in table.parts:
    if name := of_part(part):
      groups.setdefault(name, []).append(part)
  found = [
    Concept(
      name=name,
      parts=tuple(parts),
      spellings=tuple(sorted({normal(part.generic_name) for part in parts})),
      masks=sum(part.count for part in parts),
    )
    for name, parts in groups.items()
  ]
  return sorted(found, key=lambda one: (-one.classes, one.name))
