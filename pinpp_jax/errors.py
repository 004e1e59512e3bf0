"""The exception for mistakes of the user."""


class UserError(Exception):
  """A mistake outside the program: in data, config, checkpoint or devices.

  `main` and the tools print its message as one line, without a traceback, and
  exit with status 2. The message names the thing that is wrong and the way out.
  """
