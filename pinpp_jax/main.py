r"""Entry point of every run.

  python -m pinpp_jax.main --config=configs/mpm.py:mini
  python -m pinpp_jax.main --config=configs/mpm.py --config.data.batch_size=256

Without --workdir the run writes to runs/<config>-<variant>; the same command
again resumes it.
"""

import pathlib
import sys

from absl import app, flags, logging
import jax
from ml_collections import config_flags

from pinpp_jax import evaluate, label, train
from pinpp_jax.errors import UserError

RUNS = {'train': train.run, 'evaluate': evaluate.run, 'label': label.run}

_CONFIG = config_flags.DEFINE_config_file(
  'config', lock_config=True, help_string='Recipe, configs/NAME.py:VARIANT.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run; default runs/<config>-<variant>.'
)


def main(argv: list[str]) -> None:
  """Runs what `config.run` names in the work directory."""
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  config = _CONFIG.value
  # Orbax says twenty lines per save.
  logging.set_verbosity(logging.INFO)
  # Data workers import this module again: the cluster is joined here and not
  # at import time.
  if config.distributed:
    jax.distributed.initialize()
  try:
    if config.run not in RUNS:
      raise UserError(f'run={config.run!r} is not one of {sorted(RUNS)}.')
    RUNS[config.run](config, workdir())
  except UserError as error:
    print(f'pinpp_jax: {error}', file=sys.stderr)
    sys.exit(2)


def workdir() -> pathlib.Path:
  """Returns the absolute path of the run's folder, as Orbax wants it."""
  if _WORKDIR.value:
    return pathlib.Path(_WORKDIR.value).expanduser().resolve()
  named = config_flags.get_config_filename(flags.FLAGS['config'])
  path, _, variant = named.partition(':')
  name = f'{pathlib.Path(path).stem}-{variant or "full"}'
  return pathlib.Path('runs', name).resolve()


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line; a mistake in it ends in one line, status 2."""
  try:
    remaining = flags.FLAGS(argv)
    if _CONFIG.value is None:
      raise UserError('Which recipe? Give --config=configs/NAME.py:VARIANT.')
    # A recipe that cannot be loaded says so at the first look into it.
    _ = _CONFIG.value.run
    return remaining
  except (
    flags.Error,
    AttributeError,
    ImportError,
    OSError,
    UserError,
    ValueError,
  ) as error:
    print(f'pinpp_jax: {_reason(error)}', file=sys.stderr)
    sys.exit(2)


def _reason(error: BaseException) -> str:
  """Returns the line that matters of an error about flags.

  config_flags wraps errors in errors, and puts a whole traceback into a
  message, the reason last.
  """
  while error.args and isinstance(error.args[0], BaseException):
    error = error.args[0]
  text = str(error.args[0] if error.args else error)
  return text.strip().splitlines()[-1].strip()


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
