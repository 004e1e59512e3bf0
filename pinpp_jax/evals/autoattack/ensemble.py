"""AutoAttack: robust accuracy under an ensemble of four attacks.

Croce & Hein, 'Reliable evaluation of adversarial robustness with an ensemble
of diverse parameter-free attacks', 2020, arXiv:2003.01690. Whether an image is
robust depends on the image, its label, its id and the key alone: not on batch
size, order, number of devices or interruptions.

Several processes (`jax.distributed`) work on every chunk together. Each of them
must make the same call, with all images and with weights that are numpy arrays
or are replicated over the devices of all. Each gets the result; process 0 keeps
the files and the adversarial images.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import os
import pathlib
import time
from typing import Any

import jax
import numpy as np

from pinpp_jax.errors import UserError
from pinpp_jax.evals.autoattack import masking_signs, validate, versions
from pinpp_jax.evals.autoattack.chunks import (
  Job,
  Placing,
  Strike,
  as_partial,
  logits,
)
from pinpp_jax.evals.autoattack.result import Outcome, Record, write
from pinpp_jax.evals.autoattack.state import Store, Verdicts
from pinpp_jax.machine import processes

SECONDS_BETWEEN_LINES = 10.0


def autoattack(
  predict: Callable[..., jax.Array],
  images: np.ndarray,
  labels: np.ndarray,
  *,
  norm: str = 'linf',
  eps: float,
  version: str = 'standard',
  attacks: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
  key: jax.Array | None = None,
  ids: np.ndarray | None = None,
  batch_size: int = 256,
  search: Callable[..., jax.Array] | None = None,
  individual: bool = False,
  save_adversarial: bool = False,
  folder: str | os.PathLike[str] | None = None,
  about: Mapping[str, Any] | None = None,
  devices: Sequence[Any] | None = None,
  log: Callable[[str], Any] = print,
) -> Outcome:
  """Evaluates robust accuracy; returns the flags of every image and statistics.

  A success counts if the point is in the ball and in [0, 1], and `predict`
  misclassifies it.

  Args:
    predict: Maps images (B, H, W, C) float32 in [0, 1] to logits (B, K),
      float32. Version 'rand' calls it with (images, keys). The weights in a
      `jax.tree_util.Partial` become arguments of programs, not constants.
    images: (N, H, W, C) floats in [0, 1], or uint8. H = W for Square.
    labels: (N,) integers.
    norm: 'linf', 'l2' or 'l1', in any case.
    eps: Radius of the ball, for pixels in [0, 1].
    version: 'standard', 'plus', 'rand', 'aa-2' (APGD-CE and APGD-T alone, an
      upper bound) or 'custom'.
    attacks: For 'custom': names of `versions.OPTIONS`, or options by name.
    key: Of all random numbers; jax.random.key(0) if None.
    ids: (N,) distinct integers that determine the images' random numbers; None
      for 0 to N-1.
    batch_size: Images in a chunk, rounded up to a multiple of the devices.
    search: The network that the attacks use, for instance the same one in
      bfloat16; if it misleads them, robust accuracy comes out too high.
    individual: Run every attack on all images, not only on those still robust.
    save_adversarial: Keep the adversarial images, as float32.
    folder: For the state, written after every chunk, and `result.json`. The
      same call resumes where the last one stopped.
    about: Further entries of `result.json`: names of lists, preprocessing.
    devices: Local devices, for one process alone; None for those of all.
    log: Called with lines of progress.

  Raises:
    UserError: An argument is invalid, or `folder` holds another evaluation.
  """
  job = _job(
    predict,
    np.asarray(images),
    np.asarray(labels),
    np.arange(len(images)) if ids is None else np.asarray(ids),
    search=search or predict,
    ball=(norm.lower(), float(eps)),
    version=version,
    attacks=attacks,
    key=jax.random.key(0) if key is None else key,
    individual=individual,
    placing=Placing(batch_size, devices),
  )
  identity = _identity(job) | {
    'version': version,
    'search': search is not None,
    'save_adversarial': save_adversarial,
  }
  kept, log = _kept(job, folder, log)
  store = Store(kept, identity)
  outcome = _evaluate(job, store, version, save_adversarial, log)
  if kept is not None:
    write(kept, outcome, identity, dict(about or {}))
  for warning in outcome.warnings:
    log(f'Warning: {warning}')
  return outcome


def _kept(
  job: Job, folder: Any, log: Callable[[str], Any]
) -> tuple[pathlib.Path | None, Callable[[str], Any]]:
  """Returns folder and log, for processes other than 0 without effect."""
  if not job.placing.writes:
    return None, lambda line: None
  return None if folder is None else pathlib.Path(folder), log


def _job(
  predict: Callable[..., jax.Array],
  images: np.ndarray,
  labels: np.ndarray,
  ids: np.ndarray,
  *,
  search: Callable[..., jax.Array],
  ball: tuple[str, float],
  version: str,
  attacks: Any,
  **rest: Any,
) -> Job:
  """Returns the job of the arguments, after checking them."""
  norm, eps = ball
  validate.check_data(images, labels, ids)
  validate.check_ball(norm, eps)
  network = as_partial(predict)
  random = versions.takes_keys(version, attacks)
  classes = validate.count_classes(network, images, random)
  validate.check_labels(labels, classes)
  return Job(
    network=network,
    search=as_partial(search),
    images=images,
    labels=labels.astype(np.int32),
    ids=ids.astype(np.uint32),
    plan=versions.plan(version, norm, eps, classes, attacks),
    norm=norm,
    eps=eps,
    random=random,
    **rest,
  )


def _evaluate(
  job: Job,
  store: Store,
  version: str,
  save_adversarial: bool,
  log: Callable[[str], Any],
) -> Outcome:
  """Runs or resumes a job and returns its outcome."""
  with store.held():
    fresh = Verdicts.none(len(job.images), len(job.plan), job.probe())
    verdicts = store.load(fresh)
    if job.placing.together:
      verdicts = Verdicts.of(processes.of_first(verdicts.arrays))
    found = None
    if save_adversarial and job.placing.writes:
      found = store.adversarial(job.images.shape)
    signs = _signs(job)
    _Run(job, verdicts, found, store, log).finish()
  return _outcome(job, verdicts, found, version, signs)


class _Run:
  """Goes through the stages: the clean pass, then each attack's rounds."""

  def __init__(
    self,
    job: Job,
    verdicts: Verdicts,
    found: np.ndarray | None,
    store: Store,
    log: Callable[[str], Any],
  ):
    self._job, self._verdicts, self._found = job, verdicts, found
    self._store, self._log = store, log
    self._stages = [
      (number, name, turn)
      for number, (name, attack) in enumerate(job.plan.items())
      for turn in range(attack.rounds)
    ]
    self._last_line = self._started = time.monotonic()
    self._spent = 0.0

  def finish(self) -> None:
    """Runs all remaining stages, updating the verdicts."""
    self._classify()
    for stage in range(self._verdicts.stage, len(self._stages)):
      self._attack(*self._stages[stage])
      self._verdicts.stage = stage + 1
      self._verdicts.done = np.zeros_like(self._verdicts.done)
      self._store.save(self._verdicts)
      if self._ends_attack(stage):
        self._say(f'After {self._stages[stage][1]}', stage + 1)

  def _ends_attack(self, stage: int) -> bool:
    last = stage + 1 == len(self._stages)
    return last or self._stages[stage + 1][0] != self._stages[stage][0]

  def _classify(self) -> None:
    job, verdicts = self._job, self._verdicts
    for chosen in job.placing.chunks(np.flatnonzero(~verdicts.seen)):
      logits = job.classify(chosen)
      broken = chosen[~np.isfinite(logits).all(-1)]
      if len(broken):
        raise UserError(
          f'The logits of {len(broken)} clean images are not finite, the first'
          f' of them is image {broken[0]}: check the weights.'
        )
      verdicts.clean[chosen] = logits.argmax(-1) == job.labels[chosen]
      verdicts.seen[chosen] = True
      self._store.save(verdicts)
    self._log(f'Clean accuracy {100 * verdicts.clean.mean():.2f} %.')

  def _left(self, number: int) -> np.ndarray:
    """Returns (N,) bool, the images that an attack has to run on."""
    verdicts = self._verdicts
    if self._job.individual:
      return verdicts.clean & verdicts.robust[number]
    return verdicts.standing()

  def _attack(self, number: int, name: str, turn: int) -> None:
    verdicts = self._verdicts
    left = np.flatnonzero(self._left(number) & ~verdicts.done)
    for chosen in self._job.placing.chunks(left):
      start = time.monotonic()
      strike = self._job.attack(name, turn, chosen)
      verdicts.robust[number, strike.broken] = False
      verdicts.refused[number] += strike.refused
      verdicts.unconfirmed[number] += strike.unconfirmed
      self._keep(strike)
      verdicts.done[chosen] = True
      verdicts.attacked[number] += len(chosen)
      verdicts.seconds[number] += time.monotonic() - start
      self._spent += len(chosen) * _cost(self._job.plan[name])
      self._store.save(verdicts)
      if time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
        self._say(f'{name}, round {turn + 1}', self._verdicts.stage)

  def _keep(self, strike: Strike) -> None:
    """Stores adversarial images, for each image the first one found."""
    found, broken = self._found, strike.broken
    if found is None or not len(broken):
      return
    new = np.isnan(found[broken]).all((1, 2, 3))
    found[broken[new]] = strike.points[new]
    if isinstance(found, np.memmap):
      found.flush()

  def _say(self, what: str, stage: int) -> None:
    self._last_line = time.monotonic()
    robust = 100 * self._verdicts.standing().mean()
    remaining = self._remaining(stage)
    eta = ''
    if remaining and self._spent:
      rate = (self._last_line - self._started) / self._spent
      eta = f', at most {_clock(remaining * rate)} left'
    self._log(f'{what}: robust accuracy {robust:.2f} %{eta}.')

  def _remaining(self, stage: int) -> float:
    """Returns the number of passes that are left if no more image breaks."""
    left = 0.0
    done = self._verdicts.done
    for number, name, _ in self._stages[stage:]:
      left += (self._left(number) & ~done).sum() * _cost(self._job.plan[name])
      done = np.zeros_like(done)
    return left


def _cost(attack: versions.Attack) -> float:
  forward, backward = versions.calls(attack)
  # A backward pass to the image alone costs about a forward pass.
  return forward + backward


def _clock(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}'


def _identity(job: Job) -> dict[str, Any]:
  """Returns what identifies an evaluation."""
  leaves = [processes.fetch(leaf) for leaf in jax.tree.leaves(job.network)]
  return {
    'norm': job.norm,
    'eps': job.eps,
    'attacks': {name: _options(attack) for name, attack in job.plan.items()},
    'individual': job.individual,
    'key': jax.random.key_data(job.key).tolist(),
    'data_hash': _hash(job.images, job.labels, job.ids),
    # Of the weights in a Partial, if there are any.
    'weights_hash': _hash(*leaves) if leaves else '',
  }


def _options(attack: versions.Attack) -> dict[str, Any]:
  """Returns an attack's options without `loop`, which changes no result."""
  options = dataclasses.asdict(attack)
  del options['loop']
  return options


def _hash(*arrays: np.ndarray) -> str:
  digest = hashlib.sha256()
  for array in arrays:
    digest.update(f'{array.dtype} {array.shape}'.encode())
    digest.update(np.ascontiguousarray(array).view(np.uint8).data)
  return digest.hexdigest()


def _outcome(
  job: Job,
  verdicts: Verdicts,
  found: np.ndarray | None,
  version: str,
  signs: dict[str, Any],
) -> Outcome:
  records = {
    name: _record(job, verdicts, number, attack)
    for number, (name, attack) in enumerate(job.plan.items())
  }
  accuracy = {name: r.robust_accuracy for name, r in records.items()}
  accuracy['clean'] = float(verdicts.clean.mean())
  return Outcome(
    version=version,
    norm=job.norm,
    eps=job.eps,
    clean=verdicts.clean.copy(),
    robust=verdicts.standing(),
    robust_by_attack=dict(
      zip(job.plan, verdicts.robust & verdicts.clean, strict=True)
    ),
    attacks=records,
    signs=signs | {'square_better': masking_signs.square_better(accuracy)},
    ids=job.ids,
    adversarial=found,
  )


def _record(
  job: Job, verdicts: Verdicts, number: int, attack: versions.Attack
) -> Record:
  forward, backward = versions.calls(attack)
  attacked = int(verdicts.attacked[number])
  robust = verdicts.clean & verdicts.robust[number]
  return Record(
    robust_accuracy=float(verdicts.standing(number + 1).mean()),
    individual_accuracy=float(robust.mean()) if job.individual else None,
    broken=int((verdicts.clean & ~robust).sum()),
    refused=int(verdicts.refused[number]),
    unconfirmed=int(verdicts.unconfirmed[number]),
    forward_passes=attacked * forward,
    backward_passes=attacked * backward,
    seconds=float(verdicts.seconds[number]),
  )


def _signs(job: Job) -> dict[str, Any]:
  """Returns the signs of masked gradients, from the first chunk of images."""
  first = job.placing.chunks(np.arange(len(job.images)))[0]
  keys, image, label = job.chunk(first)
  network = job.bound(keys)
  fetch = processes.fetch
  passes = [fetch(logits(network, image)) for _ in range(masking_signs.PASSES)]
  flat = fetch(
    masking_signs.zero_gradients(
      network, keys, image, label, norm=job.norm, eps=job.eps
    )
  )
  label = fetch(label)
  # Only images that attacks start from; the rest of a chunk is padding.
  right = passes[0].argmax(-1) == label
  return {
    'randomised': not job.random and masking_signs.randomised(passes, label),
    'softmax': masking_signs.probabilities(passes[0]),
    'few_classes': passes[0].shape[-1] < 10,
    'zero_gradients': int((flat & right)[: len(first)].sum()),
    'operations': masking_signs.operations(network, image),
  }
