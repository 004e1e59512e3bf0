"""An entry for RobustBench's leaderboard, from an evaluation of ours.

The board wants one JSON file per model, `model_info/imagenet/Linf/<name>.json`.
Croce et al., 2021, arXiv:2010.09670, github.com/RobustBench/robustbench.
"""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
import re
from typing import Any

from pinpp_jax.construct import construct
from pinpp_jax.errors import UserError
from pinpp_jax.evals.autoattack.result import Outcome

# Its ImageNet boards without corruptions: radius by norm, as the boards write
# it, and the list of images.
BOARDS = {'linf': '4/255'}
LIST = 'rb5k'
IMAGES = 5000

_YEAR = re.compile(r'\d{4}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """The fields of an entry that are not measured.

  Attributes:
    title: Of the paper.
    authors: 'Jane Doe, Max Roe', as on the paper.
    year: Of the paper, four digits.
    link: To the paper.
    venue: Such as 'NeurIPS 2023' or 'arXiv, Feb 2024'.
    architecture: Such as 'ResNet-50'.
    short: Architecture in the file's name, for papers with several.
    additional_data: Whether it was trained on more than the data set.
    number_forward_passes: Of one prediction.
    reported: Robust accuracy in percent as in the paper, for instance '48.08';
      '' for the measured one.
    external: The same under the strongest known attack, if it is lower.
    footnote: Note for readers.
    unreliable: Whether the number is known to be too high.

  Raises:
    UserError: If a field that the board needs is empty or ill-formed.
  """

  title: str
  authors: str
  year: str
  link: str
  venue: str
  architecture: str
  short: str = ''
  additional_data: bool = False
  number_forward_passes: int = 1
  reported: str = ''
  external: str = ''
  footnote: str = ''
  unreliable: bool = False

  def __post_init__(self):
    needed = ('title', 'authors', 'link', 'venue', 'architecture')
    empty = [name for name in needed if not getattr(self, name).strip()]
    if empty:
      raise UserError(
        f'The RobustBench entry lacks {", ".join(empty)}: set them in the'
        " evaluator's field robustbench."
      )
    if not _YEAR.fullmatch(self.year):
      raise UserError(
        f"year={self.year!r} is not a year of four digits, such as '2024'."
      )
    for name in ('reported', 'external'):
      _check_percent(name, getattr(self, name))

  @property
  def file_name(self) -> str:
    """The name of the entry's file: '<Name><Year><FirstWord>[_Arch].json'."""
    first = self.authors.split(',')[0].split(' and ')[0].split()[-1]
    word = re.split(r'[\s:-]', self.title.strip())[0]
    short = f'_{_plain(self.short, "-")}' if self.short else ''
    return f'{_plain(first)}{self.year}{_plain(word)}{short}.json'


def model_info(
  entry: Entry,
  *,
  version: str,
  norm: str,
  eps: float,
  images: str,
  examples: int,
  clean_accuracy: float,
  robust_accuracy: float,
) -> dict[str, Any]:
  """Returns the board's JSON of a model; numbers are strings in percent.

  Args:
    entry: The fields that are not measured.
    version: Of AutoAttack.
    norm: 'linf', 'l2' or 'l1'.
    eps: Radius, for pixels in [0, 1].
    images: Name of the list of images.
    examples: How many of them were evaluated.
    clean_accuracy: Share in [0, 1].
    robust_accuracy: Share in [0, 1].

  Raises:
    UserError: If there is no board for such an evaluation.
  """
  _check_board(version, norm, eps, images, examples)
  if not 0 <= robust_accuracy <= clean_accuracy <= 1:
    raise UserError(
      f'clean_accuracy={clean_accuracy} and robust_accuracy={robust_accuracy}'
      ' must lie in [0, 1], and the second is at most the first.'
    )
  measured = _percent(robust_accuracy)
  optional = {'external': entry.external, 'footnote': entry.footnote}
  return {
    'link': entry.link,
    'name': entry.title,
    'authors': entry.authors,
    'additional_data': entry.additional_data,
    'number_forward_passes': entry.number_forward_passes,
    'dataset': 'imagenet',
    'venue': entry.venue,
    'architecture': entry.architecture,
    'eps': BOARDS[norm],
    'clean_acc': _percent(clean_accuracy),
    'reported': entry.reported or measured,
    'autoattack_acc': measured,
    **{name: text for name, text in optional.items() if text},
    'unreliable': entry.unreliable,
  }


def entry(section: Mapping[str, Any]) -> Entry:
  """Returns the entry that a config section describes."""
  return construct({'robustbench': Entry}, {'name': 'robustbench', **section})


def write(
  folder: pathlib.Path,
  entry: Entry,
  outcome: Outcome,
  about: Mapping[str, Any],
) -> None:
  """Writes an evaluation's file for the board, whole or not at all.

  Raises:
    UserError: If there is no board for such an evaluation.
  """
  info = model_info(
    entry,
    version=outcome.version,
    norm=outcome.norm,
    eps=outcome.eps,
    images=str(about['list']) if 'list' in about else 'no list',
    examples=len(outcome.clean),
    clean_accuracy=outcome.clean_accuracy,
    robust_accuracy=outcome.robust_accuracy,
  )
  partial = folder / 'robustbench.partial'
  partial.write_text(json.dumps(info, indent=2) + '\n')
  partial.replace(folder / entry.file_name)


def _check_board(
  version: str, norm: str, eps: float, images: str, examples: int
) -> None:
  problems = []
  if version != 'standard':
    problems.append(f"version {version!r} instead of 'standard'")
  if norm not in BOARDS:
    problems.append(f'norm {norm!r}, for which there is no ImageNet board')
  elif abs(eps - _number(BOARDS[norm])) > 1e-9:
    problems.append(f'eps {eps:.6g} instead of {BOARDS[norm]}')
  if (images, examples) != (LIST, IMAGES):
    problems.append(
      f'{examples} images of {images!r} instead of the {IMAGES} of {LIST!r}'
    )
  if problems:
    raise UserError(
      f'RobustBench has no board for this evaluation: {"; ".join(problems)}.'
    )


def _number(fraction: str) -> float:
  above, below = fraction.split('/')
  return int(above) / int(below)


def _percent(share: float) -> str:
  return f'{100 * share:.2f}'


def _check_percent(name: str, text: str) -> None:
  if text and not re.fullmatch(r'\d{1,3}\.\d{2}', text):
    raise UserError(
      f"{name}={text!r} is not in percent with two decimals, such as '48.08'."
    )


def _plain(word: str, besides: str = '') -> str:
  """Returns a word's letters, digits, underscores and characters `besides`."""
  return ''.join(c for c in word if c.isalnum() or c in '_' + besides)
