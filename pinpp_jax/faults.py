"""What happens to a run from outside, and from numbers that are not finite."""

import signal
from typing import Any

from absl import logging
import jax
import numpy as np

from pinpp_jax.errors import UserError


class Preemption:
  """Turns SIGTERM into a question that the loop asks after each step.

  Use it as a context manager; the former handler comes back at its end.
  """

  def __init__(self):
    self._asked = False
    self._before: Any = None

  def __enter__(self) -> 'Preemption':
    self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *_):
    signal.signal(signal.SIGTERM, self._before)

  def __call__(self) -> bool:
    """Returns whether the run was asked to stop."""
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
    self._pending: tuple[int, np.ndarray, Any] | None = None

  def __call__(self, step: int, index: np.ndarray, values: Any) -> None:
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
    names = ', '.join(self._source.file_name(int(i)) for i in index)
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
