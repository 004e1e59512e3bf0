"""What the viewer looks at: many images, each with its parts."""

import abc
from collections.abc import Sequence
import dataclasses

import numpy as np

from pinpp_jax.data.labels import LabelTable
from pinpp_jax.viewer.columns import Rows
from pinpp_jax.viewer.outlines import Region


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
  """One image with its parts.

  Attributes:
    image: The file as it is stored; None if there is no copy of it.
    shape: (height, width).
    true: What people drew, as local indices: uint8 (height, width) or None.
    predicted: What a network drew, likewise; its cells may be larger than a
      pixel, and fewer than the image has.
    confidence: Of the prediction, NaN if unknown.
    part_confidence: Of each part of the class; empty if unknown.
    guess: Class index that was predicted, None if there is none.
  """

  image: bytes | None
  shape: tuple[int, int]
  true: np.ndarray | None = None
  predicted: np.ndarray | None = None
  confidence: float = np.nan
  part_confidence: tuple[float, ...] = ()
  guess: int | None = None


class Catalogue(abc.ABC):
  """Images that can be listed, and looked at one by one.

  Attributes:
    title: Name, for people.
    kind: What it is, for people.
    folder: Where it lies.
    labels: Numbers its classes and parts.
    splits: Names of its splits; may be empty.
    rows: What is known of all images.
    scored: Which of 'confidence' and 'agreement' images may have.
  """

  title: str
  kind: str
  folder: str
  labels: LabelTable
  splits: Sequence[str]
  rows: Rows
  scored: Sequence[str] = ()

  @property
  def done(self) -> int:
    """Of how many rows, from the first, the details are known."""
    return len(self.rows)

  def read_details(self, wait: bool = False) -> int:
    """Begins to read the details of all rows, if need be; returns `done`.

    Args:
      wait: Whether to come back only when all are known.
    """
    del wait
    return self.done

  def close(self) -> None:
    """Ends a reading of details that is still going on."""
    return

  @abc.abstractmethod
  def picture(self, index: int) -> Picture:
    """Returns one image with its masks.

    Raises:
      UserError: it cannot be read.
    """

  @abc.abstractmethod
  def regions(self, index: int) -> list[Region]:
    """Returns the annotated outlines of an image."""
