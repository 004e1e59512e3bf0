"""The data: from a release and an ImageNet copy to batches of numpy arrays.

Building, done once: `release` reads and checks the annotations, `masks` paints
them, `splits` divides the images, and the builders in `datasets/` write all of
it as a TFDS data set beside its `labels` table. Reading, in every run:

  Recorded, ImageNet, Concatenated -> Source
      `len(source)`, `source[i] -> Example` (encoded), `source.labels`,
      `source.file_name(i)`
  lists.Listed -> Source of the validation images that a list names, as `crops`
      has cut them
  training(source, ...) -> Batches, random views without end
  evaluation(source, ...) -> Batches, every example once, padded and masked

`Batches` is a Grain IterDataset of dicts of numpy arrays, described in
`pipeline`; its iterators can be checkpointed. Nothing here imports JAX, nor
TensorFlow.
"""

from pinpp_jax.data.batches.pipeline import evaluation, example_id, training
from pinpp_jax.data.batches.prefetch import Batches
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
