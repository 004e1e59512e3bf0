"""`report.html` of a labelling run, a self-contained page."""

import base64
from collections.abc import Mapping, Sequence
import dataclasses
import io
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from pinpp_jax.data import views
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read import pseudo
from pinpp_jax.data.read.sources import Recorded
from pinpp_jax.labelling.quality import Compared
from pinpp_jax.report import pictures, template

FILE = 'report.html'
SIDE = 300  # Pixels of a picture's longer side.
CLASSES = 6  # Number of classes whose worst image is shown.
SAMPLED = 2000  # Number of labels from which the samples are chosen.
TITLES = {
  'test': 'Annotated test images, labelled in the same way',
  'truth': 'The labels of this set, where the true masks are known',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
  """An image with one or two masks over it, as data URIs."""

  title: str
  note: str
  shown: list[tuple[str, str]]  # (caption, picture)
  legend: list[tuple[str, str]]  # (colour, part)


def write(
  workdir: pathlib.Path,
  *,
  scores: Mapping[str, Mapping[str, Any]],
  found: Mapping[str, Sequence[Compared]],
  sources: Mapping[str, Recorded],
  made: Recorded,
  number: int,
) -> pathlib.Path:
  """Writes the page, in one move, and returns its path.

  Args:
    workdir: Folder of the run.
    scores: By comparison ('test', 'truth'), see `quality.scores`.
    found: The images of each comparison.
    sources: The source that each image's `place` refers to.
    made: The finished set.
    number: Number of its labels to show.
  """
  manifest = pseudo.read_manifest(made.folder)
  shown, lookup = samples(made, number)
  return template.write(
    workdir / FILE,
    'page.html.j2',
    package='pinpp_jax.labelling',
    title=workdir.resolve().name,
    folder=str(made.folder),
    labelled=len(made),
    labels=made.labels,
    facts=facts(manifest),
    skipped=_reasons(manifest['skipped']),
    compared=[
      {
        'title': TITLES.get(name, name),
        'scores': some,
        'worst': worst(found[name], sources[name]),
      }
      for name, some in scores.items()
      if some['images']
    ],
    samples=shown,
    lookup=lookup,
  )


def facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Returns segmenter, images and options of a set as (name, value) lines."""
  segmenter, source = manifest['segmenter'], manifest['source']
  words = lambda section: ', '.join(f'{k} {v}' for k, v in section.items())
  drawn_by = (
    f'{segmenter["run"]}, step {segmenter["step"]:,}'
    if segmenter['run']
    else 'an untrained network'
  )
  return [
    ('segmenter', drawn_by),
    ('its weights', f'SHA-256 {segmenter["variables"]}'),
    ('its model', words(segmenter['config']['model'])),
    ('images', f'{source["images"]:,} of {source["name"]} {source["path"]}'),
    ('list of images', f'SHA-256 {source["hash"]}'),
    ('options', words(manifest['labelling'])),
    (
      'data set',
      f'{manifest["data_set"]["name"]}, labels of SHA-256'
      f' {manifest["data_set"]["label_hash"]}',
    ),
  ]


def worst(found: Sequence[Compared], source: Recorded) -> list[Card]:
  """Returns the worst image of each of the worst classes."""
  of_class: dict[int, list[Compared]] = {}
  for one in found:
    of_class.setdefault(one.label, []).append(one)
  mean = lambda some: float(np.mean([one.miou for one in some]))
  classes = sorted(of_class.values(), key=mean)[:CLASSES]
  cards = []
  for some in classes:
    one = min(some, key=lambda one: (one.miou, one.file_name))
    masks = [('truth', one.truth), ('label', one.predicted)]
    note = f'part mIoU {one.miou:.2f}, confidence {one.confidence:.2f}'
    cards.append(_card(source, one.place, masks, note))
  return cards


def samples(made: Recorded, number: int) -> tuple[list[Card], int]:
  """Returns labels from low to high confidence, and out of how many."""
  looked = min(SAMPLED, len(made))
  places = [i * len(made) // looked for i in range(looked)]
  sure = sorted((made.confidence(i)[0], i) for i in places)
  number = min(number, looked)
  steps = np.linspace(0, looked - 1, number).round().astype(int)
  cards = []
  for confidence, place in (sure[i] for i in steps):
    masks = [('label', made[place]['part_mask'])]
    cards.append(_card(made, place, masks, f'confidence {confidence:.3f}'))
  return cards, looked


def _card(
  source: Recorded,
  place: int,
  masks: Sequence[tuple[str, bytes | None]],
  note: str,
) -> Card:
  example, labels = source[place], source.labels
  name, ids = example['file_name'], labels.candidates[example['label']]
  image = views.decode(example['image'], name)
  image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
  if max(image.size) < SIDE:
    factor = SIDE // max(image.size)
    image = image.resize((factor * image.width, factor * image.height))
  pixels, shown = np.asarray(image), [('image', image)]
  for caption, png in masks:
    grid = ids[views.decode_mask(png or b'', name)]
    over = pictures.overlay(pixels, grid, labels)
    shown.append((caption, Image.fromarray(over)))
  return Card(
    title=_class_name(labels, example['label']),
    note=f'{note} · {name.rpartition("/")[2]}',
    shown=[(caption, _jpeg(picture)) for caption, picture in shown],
    legend=[
      (pictures.colour(part.local_index), part.generic_name or part.name)
      for part in labels.of_class(example['wnid'])
    ],
  )


def _class_name(labels: LabelTable, index: int) -> str:
  return labels.object_names[index] or labels.wnids[index]


def _reasons(skipped: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
  reasons = [reason for _, reason in skipped]
  return [(reason, reasons.count(reason)) for reason in sorted(set(reasons))]


def _jpeg(image: Image.Image) -> str:
  buffer = io.BytesIO()
  image.save(buffer, 'JPEG', quality=85, subsampling=0)
  encoded = base64.b64encode(buffer.getvalue()).decode()
  return f'data:image/jpeg;base64,{encoded}'
