"""What a diagnosis consists of."""

from collections.abc import Callable, Iterable, Iterator
import dataclasses

OK, WARN, MISSING = 'ok', 'warning', 'missing'
MARKS = {OK: '+', WARN: '!', MISSING: 'x'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
  """One thing that was looked at.

  `state` is OK, WARN (works, but worth a look) or MISSING (something will not
  work); `command` is what to type next, or ''.
  """

  state: str
  what: str
  found: str
  command: str = ''


def ok(what: str, found: str) -> Line:
  """Returns a line about something that is as it should be."""
  return Line(state=OK, what=what, found=found)


def warn(what: str, found: str, command: str = '') -> Line:
  """Returns a line about something that is worth a look."""
  return Line(state=WARN, what=what, found=found, command=command)


def missing(what: str, found: str, command: str = '') -> Line:
  """Returns a line about something that will not work."""
  return Line(state=MISSING, what=what, found=found, command=command)


def guarded(what: str, look: Callable[[], Iterable[Line]]) -> Iterator[Line]:
  """Yields the lines of an examination; whatever it raises becomes one.

  A diagnosis is for machines where things are broken: a package that cannot be
  imported, a folder that cannot be read.
  """
  try:
    yield from look()
  except Exception as error:
    words = ' '.join(str(error).split()) or type(error).__name__
    yield missing(what, words)
