"""Faults of a run: signals, losses that are not finite, full disks, stalls."""

from collections.abc import Iterator
import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np

from pinpp_jax.errors import UserError


class Preemption:
  """Remembers SIGTERM, so that the loop can stop after a step.

  Use it as a context manager; leaving it restores the former handler.

  Args:
    together: Whether several processes must stop after the same step, because
      a step takes all of them. SIGTERM to one of them then stops all; each
      must call this after every step.
  """

  def __init__(self, together: bool = False):
    self._together = together and jax.process_count() > 1
    self._asked = False
    self._before: Any = None

  def __enter__(self) -> 'Preemption':
    # Processes that joined a cluster already have JAX's handler, which tells
    # all of them and makes them agree on a step that none has passed.
    if not self._together:
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *_):
    if not self._together:
      signal.signal(signal.SIGTERM, self._before)

  def __call__(self, step: int = 0) -> bool:
    """Returns whether the run must stop, now that `step` is done."""
    if self._together:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._asked

  def _note(self, *_):
    self._asked = True
    logging.info('SIGTERM: stopping after this step.')


class Watch:
  """Stops the run at the first loss or gradient that is not finite.

  The numbers of a step are read after the next one is dispatched, so that the
  device never waits for the host.
  """

  def __init__(self, source: Any, checkpoints: Any):
    self._source = source
    self._checkpoints = checkpoints
    self._pending: tuple[int, jax.Array, Any] | None = None

  def __call__(self, step: int, index: jax.Array, values: Any) -> None:
    """Checks the step before and keeps this one's numbers for the next call."""
    self.wait()
    self._pending = (step, index, (values['loss'], values['grad_norm']))

  def wait(self) -> None:
    """Checks the last step now: before its state is scored or saved.

    Raises:
      UserError: If a number is not finite; nothing of that step is saved.
    """
    if self._pending is None:
      return
    step, index, numbers = self._pending
    self._pending = None
    loss, grad_norm = (float(x) for x in jax.device_get(numbers))
    if np.isfinite(loss) and np.isfinite(grad_norm):
      return
    # The images of this process; every process names its own.
    here = np.concatenate([shard.data for shard in index.addressable_shards])
    names = ', '.join(map(self._source.file_name, dict.fromkeys(here.tolist())))
    saved = self._checkpoints.step
    raise UserError(
      f'Step {step} is not finite: loss {loss}, gradient norm {grad_norm}.'
      f' Its images: {names}. '
      + (
        f'The checkpoint of step {saved} is untouched.'
        if saved
        else 'No checkpoint was written yet.'
      )
      + ' Lower optim.learning_rate, or look at these images.'
    )


@contextlib.contextmanager
def in_words() -> Iterator[None]:
  """Turns the errors of a full disk or a lost process into a `UserError`.

  Many libraries write and communicate here, and each wraps these errors in its
  own type; only the text is common to all.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    said = str(error)
    if any(reason in said for reason in _FULL):
      raise UserError(
        f'Writing failed: {_line_with(_FULL, said)} Free some space; what was'
        ' saved before is intact, and the same command resumes there.'
      ) from error
    if jax.process_count() > 1 and any(reason in said for reason in _LOST):
      raise UserError(
        f'Another of the {jax.process_count()} processes is gone:'
        f' {_line_with(_LOST, said)} Start all of them again: the same command'
        ' resumes at the last checkpoint.'
      ) from error
    raise


# No space left, file too large, quota exceeded: this system's own messages.
_FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)))
# In errors of Gloo (CPU), NCCL (GPU) and JAX's coordination service.
_LOST = ('Gloo', 'NCCL', 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'heartbeat')


def _line_with(reasons: tuple[str, ...], text: str) -> str:
  """Returns the first line with one of the reasons, as a sentence."""
  lines = text.splitlines()
  line = next(x for x in lines if any(reason in x for reason in reasons))
  return line.strip()[:300].rstrip('.') + '.'


class Stall:
  """Logs the stack of every thread when no step has ended for long.

  Use it as a context manager, and call it after each step. Every process logs
  its own threads.

  Args:
    minutes: Time without a step before each such log; 0 for never.
  """

  def __init__(self, minutes: float):
    self._minutes = minutes
    self._moved = threading.Event()
    self._over = False
    # A daemon, so that it does not keep the process alive.
    self._thread = threading.Thread(
      target=self._wait, name='stall', daemon=True
    )

  def __enter__(self) -> 'Stall':
    if self._minutes:
      self._thread.start()
    return self

  def __exit__(self, *_):
    self._over = True
    self._moved.set()
    if self._minutes:
      self._thread.join()

  def __call__(self) -> None:
    """Starts the clock again."""
    self._moved.set()

  def _wait(self):
    while not self._over:
      if not self._moved.wait(60 * self._minutes):
        logging.warning(
          'No step has ended for %g minutes. The threads are at:\n%s',
          self._minutes,
          stacks(),
        )
      self._moved.clear()


def stacks() -> str:
  """Returns the stack of every Python thread, innermost call last."""
  names = {thread.ident: thread.name for thread in threading.enumerate()}
  return '\n'.join(
    f'Thread {names.get(ident, ident)}:\n'
    + ''.join(traceback.format_stack(frame))
    for ident, frame in sys._current_frames().items()
  )
