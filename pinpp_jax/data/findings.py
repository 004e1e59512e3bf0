"""What a reader met on its way: counted, warned about, or refused."""

import collections
from typing import Any

from pinpp_jax.errors import UserError

_KEPT = 20  # examples kept of each kind: enough to find the rest


class Findings:
  """Collects counts and examples of everything unusual in a release.

  Three strengths: `note` for what was repaired without loss, `warn` for what
  somebody should look at, `bad` for what is lost. `bad` raises UserError
  unless `skip_bad` was asked for; then it counts and the caller skips.
  """

  def __init__(self, *, skip_bad: bool = False):
    self.skip_bad = skip_bad
    self.counts: collections.Counter[str] = collections.Counter()
    self.skipped: collections.Counter[str] = collections.Counter()
    self.warnings: collections.Counter[str] = collections.Counter()
    self.examples: dict[str, list[str]] = {}
    self.per_class: dict[str, collections.Counter[str]] = {}

  def _keep(self, kind: str, where: str) -> None:
    kept = self.examples.setdefault(kind, [])
    if len(kept) < _KEPT:
      kept.append(where)

  def note(
    self, kind: str, where: str = '', amount: int = 1, wnid: str = ''
  ) -> None:
    """Counts `amount` of something handled without losing anything.

    With a `wnid` it is also counted for that class alone.
    """
    self.counts[kind] += amount
    if wnid:
      self.per_class.setdefault(kind, collections.Counter())[wnid] += amount
    if where:
      self._keep(kind, where)

  def warn(self, kind: str, where: str, amount: int = 1) -> None:
    """Counts something that is kept but deserves a look."""
    self.warnings[kind] += amount
    self._keep(kind, where)

  def bad(self, kind: str, where: str) -> None:
    """Refuses a broken thing, or counts it when skipping was asked for.

    Raises:
      UserError: names the kind and the place, unless `skip_bad` is set.
    """
    if not self.skip_bad:
      raise UserError(
        f'{where}: {kind}. Repair the file, or pass --skip_bad to leave such '
        'entries out and have them counted.'
      )
    self.skipped[kind] += 1
    self._keep(kind, where)

  def as_dict(self) -> dict[str, dict[str, Any]]:
    """Returns the counts as plain data, sorted by name.

    'examples' names the first of everything that was warned about or skipped.
    """
    named = sorted(self.warnings | self.skipped)
    return {
      'counted': dict(sorted(self.counts.items())),
      'warnings': dict(sorted(self.warnings.items())),
      'skipped': dict(sorted(self.skipped.items())),
      'examples': {kind: list(self.examples[kind]) for kind in named},
      'per_class': {
        kind: dict(sorted(counter.items()))
        for kind, counter in sorted(self.per_class.items())
      },
    }
