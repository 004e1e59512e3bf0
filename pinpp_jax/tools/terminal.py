"""Showing text to a person or to the next program of a pipe."""

import os
import sys


def show(text: str) -> None:
  """Prints text with one newline at its end; a closed pipe ends it quietly.

  The reader of a pipe, such as head, may have enough before all is written.
  """
  try:
    print(text.removesuffix('\n'), flush=True)
  except BrokenPipeError:
    # Python flushes again at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
