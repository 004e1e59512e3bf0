"""Folders that are either whole or not there."""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import pathlib
import shutil

from pinpp_jax.errors import UserError


@contextlib.contextmanager
def new(output: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a folder beside `output` that takes its name at the end.

  After an error it is removed; what a killed process has left is removed by the
  next one.

  Raises:
    UserError: something is in `output`, it cannot be written, or another
      process is writing it.
  """
  target = pathlib.Path(output).expanduser().absolute()
  if target.exists() and not (target.is_dir() and not any(target.iterdir())):
    raise UserError(
      f'{target} is there and not empty. Name another folder, or delete this '
      'one.'
    )
  partial = target.with_name(f'{target.name}.partial')
  try:
    partial.mkdir(parents=True, exist_ok=True)
    with _only_one(partial):
      try:
        _empty(partial)
        yield partial
        partial.rename(target)
      finally:
        shutil.rmtree(partial, ignore_errors=True)
  except OSError as error:
    raise UserError(f'{target} cannot be written: {error}') from error


@contextlib.contextmanager
def _only_one(folder: pathlib.Path) -> Iterator[None]:
  """Keeps a second process away from a folder."""
  handle = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield
  except BlockingIOError as error:
    raise UserError(
      f'another process is writing {folder}; wait for it to end.'
    ) from error
  finally:
    os.close(handle)


def _empty(folder: pathlib.Path) -> None:
  for path in folder.iterdir():
    if path.is_dir():
      shutil.rmtree(path)
    else:
      path.unlink()
