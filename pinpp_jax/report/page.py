"""From a run's folder to `report.html`."""

from collections.abc import Mapping, Sequence
import json
import os
import pathlib
from typing import Any

import jax

from pinpp_jax import metrics
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.evals import samples as samples_lib
from pinpp_jax.report import curves, pictures, template
from pinpp_jax.report import scores as scores_lib

FILE = 'report.html'


def write(
  workdir: str | os.PathLike[str],
  *,
  title: str | None = None,
  command: str | None = None,
  scores: Mapping[str, float] | None = None,
  samples: Sequence[samples_lib.Sample] | None = None,
  labels: LabelTable | None = None,
  weights: str = "the run's best averaged (EMA) weights",
) -> pathlib.Path:
  """Writes `workdir/report.html` and returns its path.

  The page has the scores, curves, pictures, recipe and environment of a run.
  Arguments that are None are read from the folder: `scores.json`,
  `samples.npz`, `labels.json`, `config.json`, `env.json` and `metrics.jsonl`;
  missing files are left out of the page. Process 0 replaces the file
  atomically. The page is self-contained.

  Args:
    workdir: Folder of the run.
    title: Heading, by default the folder's name.
    command: Command that made the run, by default `command` of `env.json`.
    scores: `<split>/<score>` to value.
    samples: Images to show.
    labels: Names of classes and parts; without them there are no pictures.
    weights: The weights that were scored, in words.
  """
  workdir = pathlib.Path(workdir)
  if jax.process_index() != 0:
    return workdir / FILE
  config, env = _json(workdir / 'config.json'), _json(workdir / 'env.json')
  rows = metrics.read(workdir)
  if scores is None:
    scores = _json(workdir / 'scores.json')
  if samples is None:
    samples = samples_lib.load(workdir / 'samples.npz')
  if labels is None and (workdir / 'labels.json').exists():
    labels = LabelTable.load(workdir / 'labels.json')
  table = scores_lib.table(scores, config)
  return template.write(
    workdir / FILE,
    'report.html.j2',
    title=title or workdir.resolve().name,
    subtitle=_subtitle(config, labels, rows),
    command=command or env.pop('command', None),
    weights=weights,
    headlines=scores_lib.headlines(table),
    table=table,
    notes=scores_lib.notes(table),
    scores=sorted(scores.items()),
    curves=curves.draw(rows),
    pictures=pictures.cards(samples, labels) if labels else [],
    config=json.dumps(config, indent=2) if config else '',
    environment=list(_flat(env)),
  )


def _json(path: pathlib.Path) -> dict[str, Any]:
  return json.loads(path.read_text()) if path.exists() else {}


def _subtitle(
  config: Mapping[str, Any],
  labels: LabelTable | None,
  rows: Sequence[Mapping[str, Any]],
) -> str:
  """Returns one line with model, data and steps of the run."""
  words = []
  if config:
    data = config['data']
    images = data['name'] or data['list']['name'] or 'ImageNet'
    words.append(f'{config["model"]["name"]} on {images}')
  if labels is not None:
    words.append(f'({labels.num_classes} classes, {labels.num_parts} parts)')
  if rows:
    words.append(f'· {max(row["step"] for row in rows):,} steps')
  return ' '.join(words)


def _flat(env: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Returns (name, value) lines; inner mappings and lists become one line."""
  lines = []
  for name, value in env.items():
    if isinstance(value, Mapping):
      value = ', '.join(f'{k} {v}' for k, v in value.items())
    elif isinstance(value, list):
      value = ', '.join(map(str, value))
    lines.append((name, str(value)))
  return lines
