r"""Entry point of every run.

  python -m pinpp_jax.main --config=configs/mpm.py:mini
  python -m pinpp_jax.main --config=configs/mpm.py --config.data.batch_size=256

Without --workdir the run writes to runs/<config>-<variant>; the same command
again resumes it.
"""

import os
import pathlib
import sys
from typing import NoReturn

from absl import app, flags, logging
import jax
from ml_collections import config_flags

from pinpp_jax import evaluate, label, train
from pinpp_jax.errors import UserError
from pinpp_jax.machine import descriptors, host_memory
from pinpp_jax.machine.accelerators import accelerators
from pinpp_jax.runs import command_line, faults

RUNS = {'train': train.run, 'evaluate': evaluate.run, 'label': label.run}

_CONFIG = config_flags.DEFINE_config_file(
  'config', lock_config=True, help_string='Recipe, configs/NAME.py:VARIANT.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run; default runs/<config>-<variant>.'
)
_DEVICES = flags.DEFINE_integer(
  'devices', 0, 'Devices that all processes must have in total; 0 is any.'
)
_LOCAL_DEVICES = flags.DEFINE_integer(
  'local_devices', 0, 'Devices that each process must have; 0 is any.'
)
_COMPILATION_CACHE = flags.DEFINE_string(
  'compilation_cache',
  None,
  'Folder that keeps compiled programs for later runs; default is the'
  ' environment variable JAX_COMPILATION_CACHE_DIR, else none.',
)
_STOPPED_STATUS = flags.DEFINE_integer(
  'stopped_status', 0, 'Exit status of a run that SIGTERM stopped half-way.'
)


def main(argv: list[str]) -> None:
  """Runs what `config.run` names in the work directory."""
  if len(argv) > 1:
    raise app.UsageError(f'Unknown arguments: {argv[1:]}')
  config = _CONFIG.value
  logging.set_verbosity(logging.INFO)
  try:
    if config.run not in RUNS:
      raise UserError(f'run={config.run!r} is not one of {sorted(RUNS)}.')
    # Not at import time: data workers import this module again.
    if config.distributed:
      join_cluster()
    descriptors.raise_limit()
    host_memory.keep()
    count_devices()
    warn_of_cpu()
    if _COMPILATION_CACHE.value:
      jax.config.update('jax_compilation_cache_dir', _COMPILATION_CACHE.value)
    with faults.in_words():
      finished = RUNS[config.run](config, workdir())
  except UserError as error:
    fail(error)
  if not finished:
    sys.exit(_STOPPED_STATUS.value)


def join_cluster() -> None:
  """Connects to the other processes of the run.

  A lost process is noticed after half a minute and ends the others.

  Raises:
    UserError: If this process was not started as one of several.
  """
  try:
    jax.distributed.initialize(heartbeat_timeout_seconds=30)
  except ValueError as error:
    raise UserError(
      '--config.distributed=True, but this process was not started as one of'
      f' several: {error} See docs/cluster.md.'
    ) from error


def count_devices() -> None:
  """Logs this process's number and how many devices there are.

  Raises:
    UserError: If there are not as many as the command line asks for.
  """
  local, together = jax.local_device_count(), jax.device_count()
  logging.info(
    'Process %d of %d: %d local of %d devices (%s).',
    jax.process_index(),
    jax.process_count(),
    local,
    together,
    jax.devices()[0].device_kind,
  )
  for flag, found in ((_DEVICES, together), (_LOCAL_DEVICES, local)):
    if flag.value and flag.value != found:
      raise UserError(
        f'--{flag.name}={flag.value}, but there are {found}: process'
        f' {jax.process_index()} of {jax.process_count()} has {local} of'
        f' {together} devices, {jax.devices()[0].device_kind}. See'
        ' docs/cluster.md.'
      )


def warn_of_cpu() -> None:
  """Warns if JAX uses the CPU although there seems to be an accelerator.

  Not if JAX_PLATFORMS asks for it.
  """
  if jax.default_backend() != 'cpu' or os.environ.get('JAX_PLATFORMS'):
    return
  for name, extra in accelerators().items():
    logging.warning(
      'This machine seems to have an accelerator (%s), but JAX runs on the CPU.'
      ' Install JAX for it, pip install "pinpp_jax[%s]", and run pinpp doctor.',
      name,
      extra,
    )


def fail(error: UserError) -> NoReturn:
  """Ends the process with one line and status 2."""
  print(f'pinpp_jax: {error}', file=sys.stderr, flush=True)
  if jax.distributed.is_initialized():
    # An orderly exit would wait for the other processes, and they may be
    # waiting for this one.
    sys.stdout.flush()
    os._exit(2)
  sys.exit(2)


def workdir() -> pathlib.Path:
  """Returns the run's folder, as the absolute path that Orbax needs."""
  if _WORKDIR.value:
    return pathlib.Path(_WORKDIR.value).expanduser().resolve()
  named = config_flags.get_config_filename(flags.FLAGS['config'])
  path, _, variant = named.partition(':')
  name = f'{pathlib.Path(path).stem}-{variant or "full"}'
  return pathlib.Path('runs', name).resolve()


def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line; a mistake in it ends in one line, status 2."""
  try:
    command_line.check(argv)
    remaining = flags.FLAGS(argv)
    if _CONFIG.value is None:
      raise UserError('Which recipe? Give --config=configs/NAME.py:VARIANT.')
    # A recipe that cannot be loaded raises at its first use.
    _ = _CONFIG.value.run
    return remaining
  except (
    flags.Error,
    AttributeError,
    ImportError,
    KeyError,
    OSError,
    UserError,
    ValueError,
  ) as error:
    print(f'pinpp_jax: {_reason(error)}', file=sys.stderr)
    sys.exit(2)


def _reason(error: BaseException) -> str:
  """Returns the line of an error about flags that states the reason.

  config_flags wraps errors in errors and puts a whole traceback into the
  message; the reason is its last line.
  """
  while error.args and isinstance(error.args[0], BaseException):
    error = error.args[0]
  text = str(error.args[0] if error.args else error)
  return text.strip().splitlines()[-1].strip()


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
