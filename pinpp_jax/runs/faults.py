"""What happens to a run from outside, and from numbers that are not finite."""

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
  """Turns SIGTERM into a question that the loop asks after each step.

  Use it as a context manager; the former handler comes back at its end.

  Args:
    together: Whether several processes must stop after the same step, because
      a step takes all of them. SIGTERM to one of them then stops all. They
      must ask at every step.
  """

  def __init__(self, together: bool = False):
    self._together = together and jax.process_count() > 1
    self._asked = False
    self._before: Any = None

  def __enter__(self) -> 'Preemption':
    # Processes that joined a cluster have a handler of JAX's already. It lets
    # all of them know, and agree on a step that none has passed.
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
    # Those of this process; every process names its own.
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
  """Turns what a full disk or a lost process raises into a `UserError`.

  Many libraries write and communicate here, and each wraps these errors in its
  own; what they have in common is the text.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    said = str(error)
    if any(reason in said for reason in _FULL):
      raise UserError(
        f'Nothing more can be written: {_line_with(_FULL, said)} Make room;'
        ' what was saved before is whole, and the same command resumes there.'
      ) from error
    if jax.process_count() > 1 and any(reason in said for reason in _LOST):
      raise UserError(
        f'Another of the {jax.process_count()} processes is gone:'
        f' {_line_with(_LOST, said)} Start all of them again: the same command'
        ' resumes at the last checkpoint.'
      ) from error
    raise


# No room, too large a file, quota exceeded: in the words of this system.
_FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)))
# Of Gloo (CPU), NCCL (GPU), and JAX's coordination service.
_LOST = ('Gloo', 'NCCL', 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'heartbeat')


def _line_with(reasons: tuple[str, ...], text: str) -> str:
  """Returns the first line with one of the reasons, as a sentence."""
  lines = text.splitlines()
  line = next(x for x in lines if any(reason in x for reason in reasons))
  return line.strip()[:300].rstrip('.') + '.'


class Stall:
  """Logs where every thread is when the loop has stood still for long.

  Use it as a context manager, and call it whenever a step has ended. Every
  process does so for itself.

  Args:
    minutes: How long; again after as many more. 0 is never.
  """

  def __init__(self, minutes: float):
    self._minutes = minutes
    self._moved = threading.Event()
    self._over = False
    # A daemon: it must not keep a process alive.
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
    """Starts the time again."""
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
