"""One page over several runs, such as the three stages of the method.

  pinpp overview runs/segmenter-mini runs/label-mini \
      runs/mpm-mini --output=runs/mini.html
"""

import argparse
from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
import sys
from typing import Any

import ml_collections

from pinpp_jax import label
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read.sources import Recorded
from pinpp_jax.errors import UserError
from pinpp_jax.evals import samples
from pinpp_jax.labelling import page as labelling_page
from pinpp_jax.report import pictures, scores, template

PICTURES = 4  # Of each run.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
  """What the page shows of one run.

  Attributes:
    title: Name of its folder.
    about: What was run.
    command: That made it.
    report: Path of its own report, seen from the page.
    rows: (what, on what, value, images).
    cards: Pictures: (title, [(caption, data URI)]).
  """

  title: str
  about: str
  command: str
  report: str
  rows: list[tuple[str, str, str, str]]
  cards: list[tuple[str, list[tuple[str, str]]]]


def parser() -> argparse.ArgumentParser:
  """Returns the command line of this tool."""
  result = argparse.ArgumentParser(
    prog='pinpp overview',
    description='Writes one page over several finished runs.',
  )
  result.add_argument('runs', nargs='+', help='folders of finished runs')
  result.add_argument('--output', required=True, help='the page to write')
  return result


def write(
  runs: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]
) -> pathlib.Path:
  """Writes the page in one move and returns its path.

  Raises:
    UserError: If a folder holds no finished run.
  """
  target = pathlib.Path(output)
  target.parent.mkdir(parents=True, exist_ok=True)
  stages = [_stage(pathlib.Path(run), target) for run in runs]
  return template.write(
    target, 'overview.html.j2', title=target.stem, stages=stages
  )


def _stage(run: pathlib.Path, target: pathlib.Path) -> Stage:
  results = run / 'scores.json', run / 'quality.json'
  found = [path for path in results if path.is_file()]
  if not found or not (run / 'config.json').is_file():
    raise UserError(
      f'{run} holds no finished run: there is neither {results[0].name} nor'
      f' {results[1].name}. Finish it with the command that began it.'
    )
  config, values = _json(run / 'config.json'), _json(found[0])
  trained = found[0] == results[0]
  rows, cards = (_trained if trained else _labelled)(run, config, values)
  return Stage(
    title=run.resolve().name,
    about=_about(config),
    command=_json(run / 'env.json').get('command', ''),
    report=template.link(run / 'report.html', target),
    rows=rows,
    cards=cards,
  )


def _about(config: dict[str, Any]) -> str:
  """Returns what a run was about in one line."""
  words = {'train': 'Training', 'evaluate': 'Evaluation', 'label': 'Labelling'}
  # A labelling run trains nothing.
  attack = None if config['run'] == 'label' else config['attack']
  attack = scores.threat_model(attack)
  robust = f', trained against {attack}' if attack != 'clean' else ''
  name = config['run']
  run = words.get(name, name)
  return f'{run}: {config["model"]["name"]} on {config["data"]["name"]}{robust}'


def _trained(
  run: pathlib.Path, config: dict[str, Any], values: dict[str, float]
) -> tuple[Any, Any]:
  """Returns rows and cards of a training run: its headlines, its samples."""
  rows = [
    (_what(row), row.split, row.value, row.images)
    for row in scores.table(values, config)
    if row.metric in config['headlines']
  ]
  labels = LabelTable.load(run / 'labels.json')
  some = samples.load(run / 'samples.npz')
  some = some[:: max(1, len(some) // PICTURES)][:PICTURES]
  cards = [
    (
      card.label,
      [
        (caption, picture)
        for caption, picture in (
          ('image', card.image),
          ('true parts', card.true),
          ('predicted parts', card.predicted),
        )
        if picture
      ],
    )
    for card in pictures.cards(some, labels)
  ]
  return rows, cards


def _what(row: scores.Row) -> str:
  return row.name if row.threat == 'clean' else f'{row.name}, {row.threat}'


def _labelled(
  run: pathlib.Path, config: dict[str, Any], values: dict[str, Any]
) -> tuple[Any, Any]:
  """Returns rows and cards of a labelling run, by rising confidence."""
  rows = []
  for name, some in values.items():
    on = 'annotated test images' if name == 'test' else 'the labelled images'
    for score in ('part_miou_known', 'pixel_accuracy_known'):
      value, images = f'{100 * some[score]:.1f} %', f'{some["images"]:,}'
      rows.append((scores.NAMES[score], on, value, images))
  made = Recorded(
    dataset=str(label.output(ml_collections.ConfigDict(config))),
    split='train',
    labels=LabelTable.load(run / 'labels.json'),
  )
  cards, _ = labelling_page.samples(made, PICTURES)
  return rows, [(f'{card.title}, {card.note}', card.shown) for card in cards]


def _json(path: pathlib.Path) -> dict[str, Any]:
  return json.loads(path.read_text()) if path.is_file() else {}


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the tool; returns 0, or 2 after a user's mistake."""
  options = parser().parse_args(arguments)
  try:
    target = write(options.runs, options.output)
  except UserError as error:
    print(f'overview: {error}', file=sys.stderr)
    return 2
  print(f'wrote {target}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
