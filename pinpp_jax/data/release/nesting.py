"""Which part contains which: the `including/` files of a release."""

from collections.abc import Callable, Sequence

from pinpp_jax.data.text import same


def normal(name: str) -> str:
  """Returns a name for comparing.

  One case, single spaces, no underscores, one Unicode form.
  """
  return ' '.join(same(name).replace('_', ' ').split()).casefold()


def generic_name(full_name: str, object_name: str) -> str:
  """Returns a part's name without its object.

  'tench fin' of a 'tench' gives 'fin'. A name that does not start with the
  object, or that is the object itself, is returned whole.
  """
  words = full_name.replace('_', ' ').split()
  prefix = normal(object_name).split()
  head = [word.casefold() for word in words[: len(prefix)]]
  if prefix and head == prefix and len(words) > len(prefix):
    return ' '.join(words[len(prefix) :])
  return full_name


def resolve(
  name: str, part_names: Sequence[str], generic_names: Sequence[str]
) -> int | None:
  """Returns the index of the part a bare or full name means, or None.

  Exact full names come first, then generic names, then names whose last words
  are the bare name (parts that do not begin with their object). An ambiguous
  name is None.
  """
  wanted = normal(name)
  if not wanted:
    return None
  fulls = [normal(part) for part in part_names]
  generics = [normal(part) for part in generic_names]
  tails = [full if full.endswith(f' {wanted}') else '' for full in fulls]
  for names, key in ((fulls, wanted), (generics, wanted)):
    found = [i for i, part in enumerate(names) if part == key]
    if found:
      return found[0] if len(found) == 1 else None
  found = [i for i, tail in enumerate(tails) if tail]
  return found[0] if len(found) == 1 else None


def parse(
  text: str,
  part_names: Sequence[str],
  generic_names: Sequence[str],
  refuse: Callable[[str, str, str], None],
) -> tuple[tuple[int, ...], ...]:
  """Returns every part's direct containers as sorted local indices (1..n).

  Args:
    text: lines `child:parent`; blank lines are allowed.
    part_names: full names in the order of the class file.
    generic_names: the same without the object.
    refuse: called with the line, the kind of what is wrong with it and details:
      a line without exactly one colon, a name that is no part of the class, a
      part inside itself, or a circle. If it returns, the line is left out.
  """
  parents: list[set[int]] = [set() for _ in part_names]
  for number, line in enumerate(text.split('\n'), 1):
    if not line.strip():
      continue
    where = f'line {number} ({line.strip()!r})'
    if line.count(':') != 1:
      kind = 'line that is no child:parent'
      refuse(where, kind, 'expected one "child:parent"')
      continue
    child, parent = (
      _resolved(name, where, part_names, generic_names, refuse)
      for name in line.split(':')
    )
    if child is None or parent is None:
      continue
    if child == parent:
      kind = 'part contained in itself'
      refuse(where, kind, 'a part cannot contain itself')
      continue
    if child + 1 in ancestors(parents)[parent]:
      what = 'closes a circle of parts inside each other'
      refuse(where, 'circle of containments', what)
      continue
    parents[child].add(parent + 1)
  return tuple(tuple(sorted(containers)) for containers in parents)


def _resolved(
  name: str,
  where: str,
  part_names: Sequence[str],
  generic: Sequence[str],
  refuse: Callable[[str, str, str], None],
) -> int | None:
  index = resolve(name, part_names, generic)
  if index is None:
    refuse(
      where,
      'containment of an unknown part',
      f'{name.strip()!r} is not (or not unambiguously) one of the '
      f'parts {", ".join(part_names)}',
    )
  return index


def ancestors(
  parents: Sequence[Sequence[int] | set[int]],
) -> list[frozenset[int]]:
  """Returns all direct and indirect containers of every part, as 1..n."""
  result = []
  for own in parents:
    seen: set[int] = set()
    waiting = list(own)
    while waiting:
      part = waiting.pop()
      if part not in seen:
        seen.add(part)
        waiting.extend(parents[part - 1])
    result.append(frozenset(seen))
  return result
