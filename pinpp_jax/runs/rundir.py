"""A run's folder: its recipe, its environment, its lock and its log."""

import contextlib
import fcntl
import importlib.metadata
import json
import logging as python_logging
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

from absl import logging
import jax
import ml_collections

from pinpp_jax.construct import Config
from pinpp_jax.data import text
from pinpp_jax.data.labels import LabelTable, write_json
from pinpp_jax.data.read.sources import Split
from pinpp_jax.errors import UserError

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]

# Fields that may change when a run is resumed: none affects the weights.
_FREE = (
  'run',
  'distributed',
  'fsdp',
  'evals',
  'final_splits',
  'report_samples',
  'headlines',
  'log_steps',
  'checkpoint_steps',
  'stall_minutes',
  'profile',
  'data.workers',
  'data.threads',
  'data.skip_bad',
  'data.data_dir',
  'data.eval_batch_size',
  'data.labels',
  'data.list',
)
_PACKAGES = (
  'pinpp_jax',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'grain',
  'numpy',
  'pillow',
)


@contextlib.contextmanager
def locked(workdir: pathlib.Path, option: str = '--workdir'):
  """Creates the folder and locks it against a second run.

  Of several processes of one run, process 0 holds the lock for all.

  Args:
    workdir: The folder.
    option: Option that names another folder, for the message.

  Raises:
    UserError: If another run holds the lock.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  if jax.process_index() != 0:
    yield
    return
  with open(workdir / 'lock', 'w') as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise UserError(
        f'{workdir} is in use by another run; wait for it, or give another'
        f' {option}.'
      ) from error
    yield


def log_to(workdir: pathlib.Path) -> None:
  """Copies everything logged from now on to `log.txt`.

  Processes other than 0 write `log.1.txt` and so on.

  Of other packages only warnings are logged: Orbax logs twenty lines for every
  checkpoint. Their lines with a traceback are left out too: Orbax logs, in each
  of its threads, errors that it also raises.
  """
  logger = logging.get_absl_logger()
  logger.addFilter(
    lambda record: (
      (record.levelno >= python_logging.WARNING and not record.exc_info)
      or _PACKAGE in pathlib.Path(record.pathname).parents
    )
  )
  process = jax.process_index()
  name = f'log.{process}.txt' if process else 'log.txt'
  handler = python_logging.FileHandler(workdir / name)
  handler.setFormatter(logging.PythonFormatter())
  # A full disk is reported once, by the write that failed, not by every line.
  handler.handleError = lambda record: None
  logger.addHandler(handler)


def claim(
  workdir: pathlib.Path,
  config: Config,
  source: Split,
  pseudo_hash: str = '',
) -> None:
  """Writes the folder's identity, or checks it when the run is resumed.

  Process 0 does this for all.

  Args:
    workdir: The folder.
    config: The recipe.
    source: A split of the data set.
    pseudo_hash: Hash of the pseudo labels used in training, '' for none.

  Raises:
    UserError: If the folder belongs to another recipe, label table or set of
      pseudo labels.
  """
  if jax.process_index() != 0:
    return
  resolved = json.loads(config.to_json_best_effort())
  if (workdir / 'config.json').exists():
    before = json.loads((workdir / 'config.json').read_text())
    changed = differences(before, resolved)
    if changed:
      raise UserError(
        f'{workdir} belongs to a run of another recipe; these fields differ:'
        f' {"; ".join(changed)}. Restore them, or give another --workdir.'
      )
  if (workdir / 'labels.json').exists():
    same_labels(workdir, source.labels)
  pseudo_hash = _same_pseudo_labels(workdir, pseudo_hash)
  source.labels.save(workdir / 'labels.json')
  write_json(workdir / 'config.json', resolved)
  write_json(workdir / 'env.json', environment(source, pseudo_hash))


def _same_pseudo_labels(workdir: pathlib.Path, pseudo_hash: str) -> str:
  """Returns the hash of the pseudo labels that a run started with.

  Raises:
    UserError: If the pseudo labels have changed since.
  """
  path = workdir / 'env.json'
  data = json.loads(path.read_text())['data'] if path.exists() else {}
  before = data.get('pseudo_hash', '')
  if before and pseudo_hash and before != pseudo_hash:
    raise UserError(
      f'{workdir} was started with other pseudo labels (manifest'
      f' {before[:12]}, now {pseudo_hash[:12]}): they have been made again'
      ' since. Give another --workdir.'
    )
  return pseudo_hash or before


def recipe_of(workdir: pathlib.Path) -> Config:
  """Returns the recipe of a run.

  Raises:
    UserError: If the folder is not that of a run.
  """
  path = workdir / 'config.json'
  if not path.is_file():
    raise UserError(
      f'{workdir} is not the folder of a run: it has no config.json.'
    )
  found = text.read_json(path)
  if not isinstance(found, dict):
    raise UserError(f'{path}: is no recipe; it was changed.')
  try:
    return ml_collections.ConfigDict(found)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(f'{path}: is no recipe ({error}).') from error


def same_labels(workdir: pathlib.Path, labels: LabelTable) -> None:
  """Raises `UserError` unless the run in `workdir` used these labels."""
  before = LabelTable.load(workdir / 'labels.json')
  if before.hash != labels.hash:
    raise UserError(
      f'{workdir} was trained with another label table ({before.num_classes}'
      f' classes, {before.num_parts} parts, {before.hash[:12]}) than the data'
      f' set has ({labels.num_classes} classes, {labels.num_parts} parts,'
      f' {labels.hash[:12]}); give the data set it was trained on.'
    )


def environment(source: Split, pseudo_hash: str = '') -> dict[str, Any]:
  """Returns command, versions, commit, devices and data sets."""
  versions = {}
  for package in _PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions[package] = importlib.metadata.version(package)
  return {
    'command': shlex.join(['python', '-m', 'pinpp_jax.main', *sys.argv[1:]]),
    'python': platform.python_version(),
    'platform': platform.platform(),
    'packages': versions,
    'commit': _commit(),
    'devices': [str(device) for device in jax.devices()],
    'processes': jax.process_count(),
    'data': source.about
    | {'label_hash': source.labels.hash, 'pseudo_hash': pseudo_hash},
  }


def _commit() -> str:
  try:
    return subprocess.run(
      ['git', 'describe', '--always', '--dirty', '--abbrev=40'],
      cwd=_PACKAGE,
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    # A copy without git history gets its commit from the environment.
    return os.environ.get('PINPP_COMMIT', 'unknown')


def differences(before: Any, after: Any, path: str = '') -> list[str]:
  """Returns the fields that differ between two configs and must not."""
  if path in _FREE:
    return []
  if not (isinstance(before, dict) and isinstance(after, dict)):
    return [f'{path} was {before!r}, is {after!r}'] if before != after else []
  found = []
  for name in sorted({*before, *after}):
    inner = f'{path}.{name}' if path else name
    found += differences(before.get(name), after.get(name), inner)
  return found
