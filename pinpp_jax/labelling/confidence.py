"""From probabilities to a part mask and its confidence."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
  """A predicted part mask.

  Attributes:
    mask: uint8 (height, width), 0 background, 1..n the parts of the class.
    confidence: Mean over all pixels of the largest probability, background
      included, before any part was dropped.
    part_confidence: float32 (n,): for each part the mean of its probability
      over the pixels where it is the largest; 0 for a part not in the mask.
  """

  mask: np.ndarray
  confidence: float
  part_confidence: np.ndarray


def decide(
  probabilities: np.ndarray,
  *,
  min_confidence: float = 0.0,
  min_area: float = 0.0,
) -> Label:
  """Returns the label of one image.

  Args:
    probabilities: float32 (1 + n, height, width) of background and the class's
      parts; of equal ones the first counts as the largest.
    min_confidence: A part with a lower `part_confidence` becomes background.
    min_area: A part on a smaller share of the image's pixels becomes
      background.
  """
  parts = len(probabilities) - 1
  # For few planes several times faster than argmax.
  winning = probabilities[0].copy()
  mask = np.zeros(winning.shape, np.int64)
  for part, plane in enumerate(probabilities[1:], start=1):
    mask[plane > winning] = part
    np.maximum(winning, plane, out=winning)
  pixels = np.bincount(mask.ravel(), minlength=parts + 1)
  sums = np.bincount(mask.ravel(), winning.ravel(), minlength=parts + 1)
  sure = sums / np.maximum(pixels, 1)
  keep = (sure >= min_confidence) & (pixels >= min_area * mask.size)
  keep[0] = True
  return Label(
    mask=np.where(keep[mask], mask, 0).astype(np.uint8),
    confidence=float(np.float32(sums.sum() / mask.size)),
    part_confidence=np.where(keep, sure, 0)[1:].astype(np.float32),
  )
