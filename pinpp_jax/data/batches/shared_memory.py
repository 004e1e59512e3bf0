"""How batches come from worker processes: through shared memory, or pipes.

Grain's workers put arrays into files in /dev/shm. Containers often have 64 MB
of it, less than one batch, and a process that writes to a full one is killed
(SIGBUS).
"""

import pathlib
import shutil

from absl import logging

PLACE = pathlib.Path('/dev/shm')

# Batches of one worker: the one that it makes, one that waits to be taken from
# it, and Grain's two in the process that asks for them.
_OF_WORKER = 4
_MANUAL = 'See "Shared memory" in docs/cluster.md.'


def needed(batch_bytes: int, workers: int, taken: int) -> int:
  """Returns the bytes of shared memory that batches take at most.

  Args:
    batch_bytes: Of one batch.
    workers: Processes that make batches.
    taken: Batches that were taken and are still in use.
  """
  return batch_bytes * (_OF_WORKER * workers + taken)


def room(place: pathlib.Path = PLACE) -> int | None:
  """Returns the bytes that are free; None where there is no such place."""
  return shutil.disk_usage(place).free if place.is_dir() else None


def suffices(size: int) -> bool:
  """Returns whether there is room for `size` bytes; warns once if not."""
  free = room()
  if free is None or size <= free:
    return True
  logging.log_first_n(
    logging.WARNING,
    'Batches in the hands of the data workers take up to %.1f GB, and %s has'
    ' %.2f GB left: they come through pipes instead, which is slower. %s',
    1,
    size / 1e9,
    PLACE,
    free / 1e9,
    _MANUAL,
  )
  return False


def of_death(error: Exception) -> str:
  """Returns why a worker died, as Grain's error has it; '' for other errors."""
  if 'exit code -7' in str(error):
    return f'{PLACE} was full when a data worker wrote to it. {_MANUAL}'
  if 'exit code -9' in str(error):
    return (
      'A data worker was killed, most likely because memory ran out: lower'
      ' data.workers or data.batch_size.'
    )
  return ''
