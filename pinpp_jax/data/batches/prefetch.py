"""Makes batches ahead of time, in threads or in worker processes."""

from collections.abc import Awaitable, Callable, Mapping
import json
import os
import pathlib
import sys
from typing import Any

from absl import flags
import grain
import numpy as np

from pinpp_jax.data.batches import shared_memory
from pinpp_jax.errors import UserError

Batch = dict[str, np.ndarray]

# Batches on the device besides the one in use: the next is there when the step
# ends, and one more hides a slow read. More would only take memory.
AHEAD = 2


class Batches(grain.IterDataset):
  """Batches made ahead of time in threads or worker processes.

  Its iterators' state is the number of batches taken, and nothing else: a
  checkpoint continues with any number of workers and threads.
  """

  def __init__(
    self,
    batches: grain.MapDataset,
    *,
    workers: int,
    threads: int,
    batch_bytes: int,
    put: Callable[[Batch], Any] | None = None,
  ):
    super().__init__(batches)
    self._batches = batches
    self._batch_bytes = batch_bytes
    self._workers = workers
    self._threads = threads
    self._put = put

  def put_ahead(self, put: Callable[[Batch], Any]) -> 'Batches':
    """Returns batches that `put`, such as to a device, has been called on.

    A thread does so ahead of time, to `AHEAD` batches that were not taken yet.
    """
    return Batches(
      self._batches,
      workers=self._workers,
      threads=self._threads,
      batch_bytes=self._batch_bytes,
      put=put,
    )

  def __len__(self) -> int:
    """Number of batches; of training, a number beyond reach."""
    return len(self._batches)

  def __iter__(self) -> 'BatchIterator':
    return BatchIterator(self)

  def starting_at(self, batch: int) -> grain.IterDataset:
    """Returns the plain Grain pipeline from batch number `batch` on."""
    rest = self._batches.slice(slice(batch, None))
    options = grain.ReadOptions(
      num_threads=self._threads, prefetch_buffer_size=self._threads
    )
    ahead = rest.to_iter_dataset(options)
    if self._workers:
      ahead = self._in_workers(ahead)
    if self._put is None:
      return ahead
    return grain.experimental.ThreadPrefetchIterDataset(
      ahead.map(self._put), prefetch_buffer_size=AHEAD
    )

  def _in_workers(self, batches: grain.IterDataset) -> grain.IterDataset:
    """Returns the same batches, made in worker processes."""
    if not flags.FLAGS.is_parsed():
      # Grain's workers read a flag, which fails outside of absl's app.run.
      flags.FLAGS.mark_as_parsed()
    # One is in use, one in the hand of the thread that puts them ahead.
    size = shared_memory.needed(self._batch_bytes, self._workers, AHEAD + 2)
    if not shared_memory.suffices(size):
      pipes = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
      batches = grain.experimental.WithOptionsIterDataset(batches, pipes)
    return batches.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=self._workers),
      worker_init_fn=_leave_devices_alone,
    )


class BatchIterator(grain.DatasetIterator):
  """Iterator of `Batches`; Orbax saves and restores it as it is."""

  def __init__(self, batches: Batches):
    super().__init__()
    self._batches = batches
    self._next = 0
    self._ended = False
    self._ahead: grain.DatasetIterator | None = None

  def __next__(self) -> Batch:
    if self._ended:
      raise ValueError('This iterator of batches is closed.')
    self.start_prefetch()
    try:
      batch = next(self._open())
    except RuntimeError as error:
      if reason := shared_memory.of_death(error):
        raise UserError(reason) from error
      raise
    self._next += 1
    return batch

  def get_state(self) -> dict[str, int]:
    """Returns {'next_batch': number of batches taken}."""
    return {'next_batch': self._next}

  def set_state(self, state: Mapping[str, int]) -> None:
    """Continues after `state['next_batch']` batches."""
    self._stop()
    self._next = int(state['next_batch'])

  async def load(self, directory: Any) -> Awaitable[None]:
    """Restores what Orbax saved, by however many processes it was saved.

    Grain's own looks for the file of this process among as many processes;
    but all of them have taken the same number of batches.
    """
    saved = next(pathlib.Path(directory).glob('process_*.json'))
    state = json.loads(saved.read_text())

    async def move() -> None:
      self.set_state(state)

    return move()

  def start_prefetch(self) -> None:
    """Starts making batches before the first is asked for."""
    self._open().start_prefetch()

  def close(self) -> None:
    """Ends threads and workers; the iterator gives no more batches."""
    super().close()
    self._ended = True
    self._stop()

  def _open(self) -> grain.DatasetIterator:
    if self._ahead is None:
      self._ahead = iter(self._batches.starting_at(self._next))
    return self._ahead

  def _stop(self) -> None:
    if self._ahead is not None:
      self._ahead.close()
      self._ahead = None


def _leave_devices_alone(worker: int, count: int) -> None:
  """Keeps a worker off the accelerators, in case something imports JAX."""
  del worker, count
  os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
  os.environ['JAX_PLATFORMS'] = 'cpu'
  # The main module, which a worker imports again, may have imported it before.
  if 'jax' in sys.modules:
    sys.modules['jax'].config.update('jax_platforms', 'cpu')
