"""How many files a process may hold open."""

import resource


def raise_limit() -> int:
  """Raises the soft limit to the hard one; returns it.

  A login of most Linux systems starts with 1,024, which a program may raise by
  itself. Processes started later inherit it.
  """
  _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
  return hard
