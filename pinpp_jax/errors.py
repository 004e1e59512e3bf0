"""The exceptions whose messages are written for the user."""


class UserError(Exception):
  """A mistake outside the program: in data, config, checkpoint or devices.

  `main` and the tools print its message as one line, without a traceback, and
  exit with status 2. The message names the thing that is wrong and the way out.
  """


class DamagedError(UserError):
  """Stored bytes that do not check out: the one thing `skip_bad` leaves out."""


class UnreachableError(UserError):
  """A file that the system does not give: nothing is said about its bytes.

  The table of open files is full, a disk is gone, a permission is missing.
  """
