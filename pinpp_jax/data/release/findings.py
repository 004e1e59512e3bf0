"""What a reader met on its way: counted, warned about, or refused."""

import collections
import dataclasses
from typing import Any, NoReturn

from pinpp_jax.data.release.finding_kinds import GUARDS
from pinpp_jax.errors import UserError

_KEPT = 20  # examples kept of each kind: enough to find the rest
_KEPT_PER_CLASS = 5  # the same when everything is collected

# How much a finding weighs, the worst first.
REFUSED, SKIPPED, WARNED, COUNTED = 'refused', 'skipped', 'warning', 'counted'


class Refused(UserError):
  """Something without which the rest of a file makes no sense."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """Where something was found.

  Attributes:
    text: For people, such as 'json/n01440764.json, annotation 5'.
    wnid: The class; '' for the release as a whole, as for those that follow.
    image: Its file name.
    annotation: Its id.
    part: Local index.
  """

  text: str
  wnid: str = ''
  image: str = ''
  annotation: int | None = None
  part: int | None = None

  def __str__(self) -> str:
    return self.text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
  """One thing that was found.

  `weight` is one of REFUSED, SKIPPED, WARNED and COUNTED; `detail` says more
  than the kind does, or is ''.
  """

  kind: str
  weight: str
  place: Place
  detail: str = ''

  def __str__(self) -> str:
    return f'{self.place}: {self.detail}' if self.detail else str(self.place)


class Findings:
  """Collects counts and examples of everything unusual in a release.

  Four weights: `note` for what was repaired without loss, `warn` for what
  somebody should look at, `bad` for a broken entry, `refuse` for what cannot be
  left out. `bad` raises UserError unless `skip_bad` was asked for; `refuse`
  always does. With `collect` neither raises, so that everything is found: the
  caller goes on without the entry, as it does after a skipped one.
  """

  def __init__(self, *, skip_bad: bool = False, collect: bool = False):
    self.skip_bad = skip_bad or collect
    self.collect = collect
    self.counts: collections.Counter[str] = collections.Counter()
    self.warnings: collections.Counter[str] = collections.Counter()
    self.skipped: collections.Counter[str] = collections.Counter()
    self.refused: collections.Counter[str] = collections.Counter()
    self.examples: dict[str, list[Finding]] = {}
    self.per_class: dict[str, collections.Counter[str]] = {}
    self._counters = {
      COUNTED: self.counts,
      WARNED: self.warnings,
      SKIPPED: self.skipped,
      REFUSED: self.refused,
    }

  def like(self) -> 'Findings':
    """Returns findings of the same strictness, without any."""
    return Findings(skip_bad=self.skip_bad, collect=self.collect)

  def absorb(self, later: 'Findings') -> None:
    """Adds what `like` findings met, as if it had been met here."""
    for weight, counter in later._counters.items():
      self._counters[weight].update(counter)
    for kind, counter in later.per_class.items():
      self.per_class.setdefault(kind, collections.Counter()).update(counter)
    for kind, examples in later.examples.items():
      kept = self.examples.setdefault(kind, [])
      kept += examples if self.collect else examples[: _KEPT - len(kept)]

  def note(self, kind: str, place: Place, amount: int = 1) -> None:
    """Counts `amount` of something handled without losing anything."""
    self._count(Finding(kind=kind, weight=COUNTED, place=place), amount)

  def warn(self, kind: str, place: Place, detail: str = '') -> None:
    """Counts something that is kept but deserves a look."""
    found = Finding(kind=kind, weight=WARNED, place=place, detail=detail)
    self._count(found)

  def bad(self, kind: str, place: Place, detail: str = '') -> None:
    """Refuses a broken thing, or counts it when skipping was asked for.

    Raises:
      UserError: names the kind and the place, unless `skip_bad` is set.
    """
    if not self.skip_bad:
      raise UserError(
        f'{place}: {detail or kind}. Repair the file, or pass --skip_bad to '
        'leave such entries out and have them counted.'
      )
    found = Finding(kind=kind, weight=SKIPPED, place=place, detail=detail)
    self._count(found)

  def refuse(self, kind: str, place: Place, detail: str = '') -> None:
    """Refuses a broken thing that cannot be left out.

    Raises:
      UserError: names the kind and the place, unless all is to be collected.
    """
    if not self.collect:
      raise Refused(f'{place}: {detail or kind}')
    found = Finding(kind=kind, weight=REFUSED, place=place, detail=detail)
    self._count(found)

  def fatal(self, kind: str, place: Place, detail: str = '') -> NoReturn:
    """Refuses what nothing that follows can do without; always raises."""
    self.refuse(kind, place, detail)
    raise Refused(f'{place}: {detail or kind}')

  def _count(self, found: Finding, amount: int = 1) -> None:
    assert found.kind in GUARDS, found.kind
    self._counters[found.weight][found.kind] += amount
    wnid = found.place.wnid
    of_class = self.per_class.setdefault(found.kind, collections.Counter())
    of_class[wnid] += amount
    kept = self.examples.setdefault(found.kind, [])
    if self.collect:
      same = sum(one.place.wnid == wnid for one in kept[-_KEPT_PER_CLASS:])
      if same < _KEPT_PER_CLASS:
        kept.append(found)
    elif len(kept) < _KEPT:
      kept.append(found)

  def as_dict(self) -> dict[str, dict[str, Any]]:
    """Returns the counts as plain data, sorted by name.

    'examples' names the first of everything that was warned about or skipped.
    """
    named = sorted(self.warnings | self.skipped)
    return {
      'counted': dict(sorted(self.counts.items())),
      'warnings': dict(sorted(self.warnings.items())),
      'skipped': dict(sorted(self.skipped.items())),
      'examples': {
        kind: [str(found) for found in self.examples[kind]] for kind in named
      },
      'per_class': {
        kind: {wnid: n for wnid, n in sorted(counter.items()) if wnid}
        for kind, counter in sorted(self.per_class.items())
      },
    }
