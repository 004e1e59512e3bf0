"""The data: from a release and an ImageNet copy to batches of numpy arrays.

Building, done once: `release` reads and checks the annotations, `masks` paints
them, `splits` divides the images, and the builders in `datasets/` write all of
it as a TFDS data set beside its `labels` table. Reading, in every run:

  source(section, labels=None) -> Source
      `len(source)`, `source[i] -> Example` (encoded), `source.labels`,
      `source.file_name(i)`
  training(source(s), ...) -> Batches, random views without end
  evaluation(source(s), ...) -> Batches, every example once, padded and masked

`Batches` is a Grain IterDataset of dicts of numpy arrays, described in
`pipeline`; its iterators can be checkpointed. Nothing here imports JAX, nor
TensorFlow.
"""

from collections.abc import Callable, Mapping
import functools
import inspect
from typing import Any

from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.pipeline import evaluation, example_id, training
from pinpp_jax.data.prefetch import Batches
from pinpp_jax.data.sources import (
  Concatenated,
  Example,
  ImageNet,
  Recorded,
  Source,
)
from pinpp_jax.errors import UserError

SOURCES: dict[str, Callable[..., Source]] = {
  'imagenet': ImageNet,
  'pinpp': functools.partial(Recorded, dataset='pinpp'),
  'pinpp_mini': functools.partial(Recorded, dataset='pinpp_mini'),
  'pinpp_pseudo': functools.partial(Recorded, dataset='pinpp_pseudo'),
}

__all__ = [
  'SOURCES',
  'Batches',
  'Concatenated',
  'Example',
  'LabelTable',
  'Source',
  'evaluation',
  'example_id',
  'mixture',
  'source',
  'training',
]


def source(
  section: Mapping[str, Any], labels: LabelTable | None = None
) -> Source:
  """Returns the source that a config section describes.

  Args:
    section: `name`, one of SOURCES, and keywords of what it stands for.
    labels: The numbering in use; a source numbered otherwise is refused.

  Raises:
    UserError: If a name or field is unknown, or the data is not there.
  """
  fields = dict(section)
  name = fields.pop('name', None)
  if name not in SOURCES:
    raise UserError(f'Source name={name!r} is not one of {sorted(SOURCES)}.')
  known = set(inspect.signature(SOURCES[name]).parameters) - {'labels'}
  unknown = sorted(set(fields) - known)
  if unknown:
    raise UserError(
      f'Source {name} has no field {unknown}; its fields are {sorted(known)}.'
    )
  return SOURCES[name](**fields, labels=labels)


def mixture(
  sections: Mapping[str, Mapping[str, Any]],
  labels: LabelTable | None = None,
) -> Concatenated:
  """Returns several sources as one, such as labelled and unlabelled images.

  Args:
    sections: From a name of one's choice to a section for `source`, which may
      also have `repeat`: how often an epoch passes through it (default 1).
      Built data sets come first in the mixture, then in the order of names.
    labels: The numbering in use; by default that of the first source.

  Raises:
    UserError: As `source`, and if the numberings differ.
  """
  found, repeats = [], []
  # Not in the order written: a ConfigDict has none. Built data sets come first,
  # since they bring the numbering.
  for _, section in sorted(
    sections.items(), key=lambda item: (item[1]['name'] == 'imagenet', item[0])
  ):
    fields = dict(section)
    repeats.append(fields.pop('repeat', 1))
    found.append(source(fields, labels))
    labels = found[0].labels
  return Concatenated(found, repeats)
