"""What is known of every image, in a few bytes each."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from pinpp_jax.data.labels import LabelTable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
  """Columns over N images. Details may be known of the first of them only.

  Attributes:
    names: File names.
    label: Class index: int32 (N,).
    split: Place in the catalogue's splits: uint8 (N,).
    discarded: Whether the release lists the image as discarded: bool (N,).
    source: Place in `SOURCES`, a detail: uint8 (N,).
    confidence: Of a predicted mask, NaN where there is none, a detail:
      float32 (N,).
    agreement: Mean IoU of predicted and true parts, NaN without either, a
      detail: float32 (N,).
    areas: Each part's share of its image, by local index from 1, a detail:
      float32 (N, largest number of parts in a class).
  """

  names: Sequence[str]
  label: np.ndarray
  split: np.ndarray
  discarded: np.ndarray
  source: np.ndarray
  confidence: np.ndarray
  agreement: np.ndarray
  areas: np.ndarray

  def __len__(self) -> int:
    return len(self.names)


SOURCES = ('human', 'pseudo', 'none')
DETAILS = ('source', 'confidence', 'agreement', 'areas')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Details:
  """The details of one image; `areas` are of its class's parts."""

  source: str
  areas: np.ndarray
  confidence: float = np.nan
  agreement: float = np.nan


def bare(
  names: Sequence[str],
  label: Sequence[int],
  split: Sequence[int],
  table: LabelTable,
) -> Rows:
  """Returns rows without any details, which can be written into them."""
  number = len(names)
  return Rows(
    names=names,
    label=np.asarray(label, np.int32),
    split=np.asarray(split, np.uint8),
    discarded=np.zeros(number, np.bool_),
    source=np.zeros(number, np.uint8),
    confidence=np.full(number, np.nan, np.float32),
    agreement=np.full(number, np.nan, np.float32),
    areas=np.zeros((number, table.max_parts), np.float32),
  )


def put(rows: Rows, index: int, details: Details) -> None:
  """Writes an image's details into its row."""
  rows.source[index] = SOURCES.index(details.source)
  rows.confidence[index] = details.confidence
  rows.agreement[index] = details.agreement
  rows.areas[index, : len(details.areas)] = details.areas


def areas(mask: np.ndarray | None, parts: int) -> np.ndarray:
  """Returns the share of an image that each part of a class covers."""
  if mask is None:
    return np.zeros(parts, np.float32)
  seen = np.bincount(mask.ravel(), minlength=parts + 1)[1 : parts + 1]
  return (seen / mask.size).astype(np.float32)


def agreement(true: np.ndarray | None, predicted: np.ndarray | None) -> float:
  """Returns the mean IoU over the parts in either mask.

  It is NaN without any part, without a mask, or if their sizes differ.
  """
  if true is None or predicted is None or true.shape != predicted.shape:
    return np.nan
  parts = int(max(true.max(initial=0), predicted.max(initial=0))) + 1
  pairs = true.astype(np.int64) * parts + predicted
  table = np.bincount(pairs.ravel(), minlength=parts**2).reshape(parts, parts)
  both = np.diag(table)[1:]
  either = (table.sum(0) + table.sum(1))[1:] - both
  seen = either > 0
  return float((both[seen] / either[seen]).mean()) if seen.any() else np.nan
