"""Images with their true and predicted parts painted over them."""

import base64
from collections.abc import Sequence
import dataclasses
import io

import numpy as np
from PIL import Image

from pinpp_jax.data.colours import colour
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.evals.samples import Sample

SIZE = 256  # Smallest side of a picture, in pixels.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
  """One sample on the page."""

  label: str
  predicted_class: str  # Empty if the model predicts no class.
  correct: bool
  image: str  # Data URIs.
  true: str
  predicted: str
  agreement: str
  legend: list[tuple[str, str]]  # (colour, name of a part)


def cards(samples: Sequence[Sample], labels: LabelTable) -> list[Card]:
  """Returns one card per sample."""
  return [_card(sample, labels) for sample in samples]


def overlay(
  image: np.ndarray, grid: np.ndarray, labels: LabelTable
) -> np.ndarray:
  """Returns a grey image with its parts in colour.

  Args:
    image: uint8 (S, S, 3).
    grid: (h, w) part ids, 0 background.
    labels: Label table; a part's index in its class determines its colour.
  """
  ids = _resize(grid, image.shape[:2])
  palette = np.array(
    [(255, 255, 255)] + [_rgb(colour(p.local_index)) for p in labels.parts],
    np.float32,
  )
  # On light grey, a part's colour stays close to that of the legend.
  grey = np.asarray(Image.fromarray(image).convert('L'), np.float32)
  grey = 110 + grey * (145 / 255)
  alpha = np.where(ids > 0, 0.65, 0.5)[..., None]
  mixed = (1 - alpha) * grey[..., None] + alpha * palette[ids]
  edge = np.zeros(ids.shape, bool)
  edge[1:] |= ids[1:] != ids[:-1]
  edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
  mixed[edge] = 255
  return mixed.round().astype(np.uint8)


def _card(sample: Sample, labels: LabelTable) -> Card:
  image = _enlarge(sample.image)
  wnid, guess = labels.wnids[sample.label], sample.predicted_class
  return Card(
    label=_class_name(labels, sample.label),
    predicted_class='' if guess is None else _class_name(labels, guess),
    correct=sample.label == guess,
    image=jpeg(image),
    true=jpeg(overlay(image, sample.true, labels)) if sample.masked else '',
    predicted=(
      ''
      if sample.predicted is None
      else jpeg(overlay(image, sample.predicted, labels))
    ),
    agreement=_agreement(sample),
    legend=[
      (colour(part.local_index), part.generic_name or part.name)
      for part in labels.parts
      if part.wnid == wnid
    ],
  )


def _agreement(sample: Sample) -> str:
  """Returns the share of the true cells that are predicted right, in %."""
  if sample.predicted is None or not sample.masked or not sample.true.any():
    return ''
  right = (sample.true == sample.predicted)[sample.true > 0]
  return f'{100 * right.mean():.0f} %'


def _class_name(labels: LabelTable, index: int) -> str:
  return labels.object_names[index] or labels.wnids[index]


def _enlarge(image: np.ndarray) -> np.ndarray:
  """Returns the image with at least SIZE pixels a side."""
  factor = -(-SIZE // min(image.shape[:2]))
  height, width = (factor * side for side in image.shape[:2])
  resized = Image.fromarray(image).resize(
    (width, height), Image.Resampling.BICUBIC
  )
  return np.asarray(resized)


def _resize(grid: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Returns the grid with each cell repeated to fill an image."""
  rows, columns = (
    np.arange(side) * cells // side
    for side, cells in zip(shape, grid.shape, strict=True)
  )
  return grid[np.ix_(rows, columns)]


def _rgb(code: str) -> tuple[int, ...]:
  return tuple(bytes.fromhex(code[1:]))


def jpeg(image: np.ndarray) -> str:
  """Returns an image as a data URI."""
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'JPEG', quality=88, subsampling=0)
  encoded = base64.b64encode(buffer.getvalue()).decode()
  return f'data:image/jpeg;base64,{encoded}'
