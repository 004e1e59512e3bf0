"""Images with their true and predicted parts, for people to look at."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any

import jax
import numpy as np

from pinpp_jax.data.labels import LabelTable
from pinpp_jax.evals import examples as examples_lib
from pinpp_jax.evals import predictions
from pinpp_jax.machine import processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
  """One image with its true and predicted parts, for a report."""

  image: np.ndarray  # uint8 (S, S, 3)
  true: np.ndarray  # int32 (h, w), global part ids
  predicted: np.ndarray | None  # Likewise, class known; None without parts.
  label: int
  predicted_class: int | None  # None without class logits.
  masked: bool  # Whether the image has a part mask at all.


def samples(
  variables: Any,
  key: jax.Array,
  *,
  number: int,
  model: Any,
  batches: examples_lib.Batches,
  put: examples_lib.Put,
  labels: LabelTable,
) -> list[Sample]:
  """Returns predictions for the first examples of a split, class known.

  A model that does not predict the parts of this label table (a plain
  classifier, object masks) gives samples without predicted parts, one without
  class logits (a segmenter) samples without predicted class. Every process
  must call this, and gets the same list.
  """
  found: list[Sample] = []
  for batch in examples_lib.first(batches(), number):
    placed = put({name: batch[name] for name in predictions.FIELDS})
    parts = predictions.outputs(model, variables, placed['image']).get('parts')
    has_parts = bool(parts) and parts[0].shape[-1] == labels.num_parts + 1
    grids = processes.fetch(
      predictions.predict(
        variables,
        placed,
        key,
        model=model,
        attack=None,
        channels=labels.num_parts + 1 if has_parts else 0,
        known=True,
      )
      | {'image': placed['image']}
    )
    rows = np.flatnonzero(grids['mask']).tolist()
    found += [_sample(grids, i) for i in rows]
  return found


def save(path: pathlib.Path, found: Sequence[Sample]) -> None:
  """Writes samples of one size to an .npz file, atomically."""
  arrays = {
    field.name: np.array([getattr(sample, field.name) for sample in found])
    for field in dataclasses.fields(Sample)
    if all(getattr(sample, field.name) is not None for sample in found)
  }
  part = path.with_suffix('.part')
  with open(part, 'wb') as file:
    np.savez_compressed(file, allow_pickle=False, **arrays)
  os.replace(part, path)


def load(path: pathlib.Path) -> list[Sample]:
  """Returns the samples that `save` wrote; none if there is no file."""
  if not path.exists():
    return []
  with np.load(path, allow_pickle=False) as file:
    arrays = dict(file)
  return [
    Sample(
      image=arrays['image'][i],
      true=arrays['true'][i],
      predicted=arrays['predicted'][i] if 'predicted' in arrays else None,
      label=int(arrays['label'][i]),
      predicted_class=_class(arrays, 'predicted_class', i),
      masked=bool(arrays['masked'][i]),
    )
    for i in range(len(arrays['label']))
  ]


def _sample(grids: Mapping[str, np.ndarray], i: int) -> Sample:
  return Sample(
    image=grids['image'][i],
    true=grids['truth'][i],
    predicted=grids['known'][i] if 'known' in grids else None,
    label=int(grids['label'][i]),
    predicted_class=_class(grids, 'class', i),
    masked=bool(grids['source'][i] != 0),
  )


def _class(arrays: Mapping[str, np.ndarray], name: str, i: int) -> int | None:
  return int(arrays[name][i]) if name in arrays else None
