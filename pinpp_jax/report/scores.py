"""Final scores as table rows with readable names and threat models."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import math
from typing import Any

_SEGMENTATION = {
  'part_miou_known': 'Part mIoU, class known',
  'part_miou_open': 'Part mIoU, class unknown',
  'part_miou_known_per_object': 'Part mIoU per object class, class known',
  'object_miou': 'Object mIoU',
  'pixel_accuracy': 'Pixel accuracy on parts, class unknown',
  'pixel_accuracy_known': 'Pixel accuracy on parts, class known',
}
_ENDS = {
  '': '',
  '_prior': ' (location prior)',
  '_grid': ', 8-pixel grid',
  '_grid_prior': ', 8-pixel grid (location prior)',
}
_CLASSIFICATION = {
  'accuracy': 'Top-1 accuracy',
  'top5': 'Top-5 accuracy',
  'loss': 'Cross entropy',
} | {
  f'{attack.lower()}_accuracy': f'Top-1 accuracy after {attack}'
  for attack in ('APGD-CE', 'APGD-DLR', 'APGD-T', 'FAB', 'FAB-T', 'Square')
}
# In the order of the table; other scores are only in the full list below it.
NAMES = _CLASSIFICATION | {
  score + end: name + words
  for score, name in _SEGMENTATION.items()
  for end, words in _ENDS.items()
}
# Explanations of scores by a part of their name.
_NOTES = {
  '_grid': (
    '“8-pixel grid” counts one of 8 × 8 pixels, as labels of classifiers do.'
  ),
  '_prior': (
    '“Location prior” predicts, for every image of a class, the most frequent'
    ' label at each position in its training images.'
  ),
}
_NAMES_OF_ATTACKS = {'autoattack': 'AutoAttack'}
_HEADLINES = ('accuracy', 'part_miou_known', 'object_miou')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One score."""

  metric: str  # Its name in scores.json.
  split: str
  score: str  # Without split and prefix.
  name: str
  threat: str
  value: str
  interval: str
  images: str


def table(scores: Mapping[str, float], config: Mapping[str, Any]) -> list[Row]:
  """Returns the scores of `NAMES`, by split, threat model and name.

  Args:
    scores: `<split>/[<prefix>_]<score>` to value.
    config: Resolved recipe; `evals` has the attack of each prefix.
  """
  rows = []
  for split in dict.fromkeys(name.rpartition('/')[0] for name in scores):
    for prefix, threat in _threats(config):
      start = f'{split}/{prefix}_' if prefix else f'{split}/'
      for score, name in NAMES.items():
        if start + score in scores:
          rows.append(_row(scores, split, start, score, name, threat))
  return rows


def headlines(rows: Sequence[Row]) -> list[Row]:
  """Returns the most important rows of the first split, at most five."""
  found = [
    row
    for row in rows
    if row.score in _HEADLINES and row.split == rows[0].split
  ]
  return sorted(found, key=lambda row: _HEADLINES.index(row.score))[:5]


def notes(rows: Sequence[Row]) -> list[str]:
  """Returns sentences that explain names in these rows."""
  return [
    note
    for part, note in _NOTES.items()
    if any(part in row.score for row in rows)
  ]


def threat_model(attack: Mapping[str, Any] | None) -> str:
  """Returns an attack's config section as a readable threat model."""
  if not attack or attack.get('name') in (None, 'none'):
    return 'clean'
  words = [_NAMES_OF_ATTACKS.get(attack['name'], str(attack['name']).upper())]
  norm = str(attack.get('norm', '')).lower()
  if norm:
    words.append({'linf': 'L∞', 'l2': 'L2', 'l1': 'L1'}.get(norm, norm))
  if 'eps' in attack:
    words.append(f'ε = {_length(attack["eps"], norm)}')
  if 'steps' in attack:
    steps = f'{attack["steps"]} steps'
    if 'step_size' in attack:
      steps += f' of {_length(attack["step_size"], norm)}'
    words.append(steps)
  if 'version' in attack:
    bound = attack['version'] in ('aa-2', 'custom')
    words.append(attack['version'] + (', an upper bound' if bound else ''))
  return ', '.join([' '.join(words[:2]), *words[2:]])


def _threats(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """Yields (prefix, threat model) of every evaluator, '' and clean at least."""
  found = {'clean': 'clean', '': 'clean'}
  sections = config['evals'] if config else {}
  for section in sections.values():
    default = 'clean' if section.get('name') == 'accuracy' else ''
    prefix, attack = section.get('prefix', default), section.get('attack')
    if section.get('name') == 'autoattack':
      # With the evaluator's defaults.
      attack = {'norm': 'linf', 'version': 'standard', **section}
      prefix = prefix or f'{attack["version"]}_{attack["norm"].lower()}'
    found[prefix] = threat_model(attack)
  yield from found.items()


def _row(scores, split, start, score, name, threat):
  masked = score not in _CLASSIFICATION
  images = scores.get(start + ('masked_examples' if masked else 'examples'))
  low, high = (scores.get(f'{start}{score}_{end}') for end in ('low', 'high'))
  return Row(
    metric=start + score,
    split=split,
    score=score,
    name=name,
    threat=threat,
    value=_value(score, scores[start + score]),
    interval=(
      ''
      if low is None or high is None
      else f'{_value(score, low)} – {_value(score, high)}'
    ),
    images='' if images is None else f'{images:,.0f}',
  )


def _value(score: str, value: float | None) -> str:
  if value is None or not math.isfinite(value):
    return 'not finite'
  return f'{value:.4f}' if score == 'loss' else f'{100 * value:.1f} %'


def _length(value: float, norm: str) -> str:
  return f'{255 * value:.3g}/255' if norm in ('', 'linf') else f'{value:.3g}'
