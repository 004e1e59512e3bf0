"""The result of an evaluation by several attacks, and `result.json`."""

from collections.abc import Mapping
import dataclasses
import importlib.metadata
import json
import pathlib
import platform
from typing import Any

import jax
import numpy as np

from pinpp_jax.evals.autoattack import masking_signs

FILE = 'result.json'

_PACKAGES = ('pinpp_jax', 'jax', 'jaxlib', 'numpy')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
  """The result of one attack of the ensemble.

  Attributes:
    robust_accuracy: Share of all images that are robust to this attack and
      those before it.
    individual_accuracy: Share that is robust to this attack alone; None unless
      every attack ran on all images.
    broken: Number of images it broke.
    refused: Successes outside the ball or the box, which do not count.
    unconfirmed: Points that are classified right when checked, and images that
      are misclassified without having changed (ties).
    forward_passes: Images times passes, at most.
    backward_passes: The same; to the image alone.
    seconds: Wall time, compilation included.
  """

  robust_accuracy: float
  individual_accuracy: float | None
  broken: int
  refused: int
  unconfirmed: int
  forward_passes: int
  backward_passes: int
  seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """The result of an evaluation.

  Attributes:
    version: Of AutoAttack, or 'custom'.
    norm: 'linf', 'l2' or 'l1'.
    eps: Radius.
    clean: (N,) bool, classified right without attack.
    robust: (N,) bool, classified right without and with every attack.
    robust_by_attack: For each attack (N,) bool, right and not broken by it;
      complete only if every attack ran on all images.
    attacks: The record of each attack.
    signs: Signs of masked gradients: 'randomised', 'softmax', 'few_classes',
      'square_better' (bool), 'zero_gradients' (number of images), 'operations'
      (names).
    ids: (N,) of the images.
    adversarial: (N, H, W, C) float32, NaN where there is none; None unless
      requested.
  """

  version: str
  norm: str
  eps: float
  clean: np.ndarray
  robust: np.ndarray
  robust_by_attack: Mapping[str, np.ndarray]
  attacks: Mapping[str, Record]
  signs: Mapping[str, Any]
  ids: np.ndarray
  adversarial: np.ndarray | None

  @property
  def clean_accuracy(self) -> float:
    """Returns the share of all images that are classified right."""
    return float(self.clean.mean())

  @property
  def robust_accuracy(self) -> float:
    """Returns the share of all images that no attack broke."""
    return float(self.robust.mean())

  @property
  def upper_bound(self) -> bool:
    """Returns whether fewer attacks ran than in the standard evaluation."""
    return self.version in ('aa-2', 'custom')

  @property
  def warnings(self) -> list[str]:
    """Returns a sentence for each sign that needs attention."""
    sentences = {
      'randomised': 'the network is random: use version="rand".',
      'softmax': 'the outputs look like probabilities: return logits, because'
      ' gradients through a softmax vanish.',
      'few_classes': 'there are fewer than ten classes, and so fewer targets.',
      'square_better': 'Square, which needs no gradients, is the strongest'
      ' attack: gradients may be masked.',
    }
    found = [text for name, text in sentences.items() if self.signs[name]]
    if self.signs['zero_gradients']:
      found.append(
        f'{self.signs["zero_gradients"]} images of the first chunk that are'
        ' classified right have a zero gradient.'
      )
    # Custom gradients are usually for speed.
    odd = set(self.signs['operations']) - {masking_signs.OWN_GRADIENT}
    if odd:
      found.append(
        f'the network {", ".join(sorted(odd))}: consider an adaptive attack.'
      )
    refused = sum(record.refused for record in self.attacks.values())
    if refused:
      found.append(f'{refused} successes lay outside the ball or the box.')
    return found


def content(
  outcome: Outcome, identity: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns `result.json`: everything but the images.

  Flags are strings of 0 and 1, one character per image.
  """
  flags = lambda x: ''.join('01'[int(v)] for v in x)
  return {
    'about': dict(about),
    'version': outcome.version,
    'norm': outcome.norm,
    'eps': outcome.eps,
    'images': len(outcome.clean),
    'clean_accuracy': outcome.clean_accuracy,
    'robust_accuracy': outcome.robust_accuracy,
    'upper_bound': outcome.upper_bound,
    'attacks': {k: dataclasses.asdict(v) for k, v in outcome.attacks.items()},
    'constraint_violations': sum(v.refused for v in outcome.attacks.values()),
    'signs': dict(outcome.signs),
    'warnings': outcome.warnings,
    'flags': {
      'clean': flags(outcome.clean),
      'robust': flags(outcome.robust),
      **{k: flags(v) for k, v in outcome.robust_by_attack.items()},
    },
    'ids': outcome.ids.tolist(),
    'identity': dict(identity),
    'environment': {
      'backend': jax.default_backend(),
      'devices': [str(device) for device in jax.devices()],
      'matmul_precision': str(
        jax.config.values['jax_default_matmul_precision']
      ),
      'python': platform.python_version(),
      'packages': {
        name: importlib.metadata.version(name) for name in _PACKAGES
      },
    },
  }


def write(
  folder: pathlib.Path,
  outcome: Outcome,
  identity: Mapping[str, Any],
  about: Mapping[str, Any],
) -> None:
  """Writes `result.json`, whole or not at all."""
  partial = folder / (FILE + '.partial')
  text = json.dumps(content(outcome, identity, about), indent=1)
  partial.write_text(text + '\n')
  partial.replace(folder / FILE)
