"""The data: from a release and an ImageNet copy to batches of numpy arrays.

release    the files of a release, read, checked and painted
imagenet   the user's ImageNet copy, in every layout, and crops of it
mini       the embedded data set, drawn by the program
build      from these to a TFDS data set with its table of `labels`, done once
read       built sets, pseudo labels and image lists as sources of examples
batches    from a source to batches

  Source      `len(source)`, `source[i] -> Example` (encoded), `source.labels`,
              `source.file_name(i)`
  training(source, ...)    -> Batches, random views without end
  evaluation(source, ...)  -> Batches, every example once, padded and masked

`Batches` is a Grain IterDataset of dicts of numpy arrays, described in
`batches.pipeline`; its iterators can be checkpointed. Nothing here imports JAX
or TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pinpp_jax.data.labels import LabelTable
from pinpp_jax.data.read.sources import (
  Chosen,
  Concatenated,
  Example,
  ImageNet,
  Recorded,
  Source,
)

__all__ = [
  'Batches',
  'Chosen',
  'Concatenated',
  'Example',
  'ImageNet',
  'LabelTable',
  'Recorded',
  'Source',
  'evaluation',
  'example_id',
  'training',
]

if TYPE_CHECKING:
  from pinpp_jax.data.batches.pipeline import evaluation, example_id, training
  from pinpp_jax.data.batches.prefetch import Batches

# Imported when asked for: Grain takes a second, and masks do not need it.
_OF_BATCHES = {
  'Batches': 'prefetch',
  'evaluation': 'pipeline',
  'example_id': 'pipeline',
  'training': 'pipeline',
}


def __getattr__(name: str) -> Any:
  if name not in _OF_BATCHES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(f'{__name__}.batches.{_OF_BATCHES[name]}')
  return getattr(module, name)
