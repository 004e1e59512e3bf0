"""How well heat maps agree with the masks of concepts. Needs numpy alone.

A heat map is a 2-D array of any size whose larger values say "here"; a mask is
bool (height, width), the pixels of a concept in an image. A map of another size
is resized to the mask by `resize`. For an image in which the concept is:

  pointing     the share of the pixels with the largest value that lie in the
               mask: 0 or 1 unless several are equal, so that a constant map
               scores what a random pixel would (the pointing game, without a
               margin)
  mass         the sum of positive values inside the mask over that of all; 0
               where nothing is positive
  IoU at t     intersection over union of the mask and the pixels that reach a
               share t of the way from the smallest to the largest value; a
               constant map reaches nothing
  pixel AP     average precision of the values as scores of pixels

Each is averaged over these images. An image without the concept counts only for

  presence AP  average precision of the largest value of each map (before
               resizing) as a score of images: is the concept in it?

Average precision is the sum over distinct scores, from the largest, of
precision times gain in recall; equal scores are taken together. It is NaN
without a positive.
"""

import collections
from collections.abc import Iterable, Sequence
import dataclasses

import numpy as np

from pinpp_jax.errors import UserError

THRESHOLDS = (0.25, 0.5, 0.75)


def resize(heat: np.ndarray, height: int, width: int) -> np.ndarray:
  """Returns a map of another size: float64 (height, width).

  Bilinear between the centres of pixels, without antialiasing, the border
  repeated: torch's `interpolate(mode='bilinear', align_corners=False)`.
  """
  heat = np.asarray(heat, np.float64)
  return _along_rows(_along_rows(heat, height).T, width).T


def _along_rows(values: np.ndarray, length: int) -> np.ndarray:
  last = len(values) - 1
  place = (np.arange(length) + 0.5) * (len(values) / length) - 0.5
  place = np.clip(place, 0, last)
  below = place.astype(np.int64)
  above = np.minimum(below + 1, last)
  share = (place - below)[:, None]
  return values[below] * (1 - share) + values[above] * share


def pointing(heat: np.ndarray, mask: np.ndarray) -> float:
  """Returns the share of the largest pixels that lie in the mask."""
  return float(mask[heat == heat.max()].mean())


def mass(heat: np.ndarray, mask: np.ndarray) -> float:
  """Returns the share of positive values that lies in the mask."""
  positive = np.maximum(heat, 0)
  total = positive.sum()
  return float(positive[mask].sum() / total) if total > 0 else 0.0


def iou(
  heat: np.ndarray,
  mask: np.ndarray,
  thresholds: Sequence[float] = THRESHOLDS,
) -> np.ndarray:
  """Returns intersection over union at each threshold: float64 (T,).

  Args:
    heat: of the mask's size.
    mask: bool, not empty.
    thresholds: shares of the way from the smallest to the largest value.
  """
  low, high = heat.min(), heat.max()
  found = []
  for threshold in thresholds:
    reached = heat >= low + threshold * (high - low)
    reached &= high > low
    union = np.count_nonzero(reached | mask)
    found.append(np.count_nonzero(reached & mask) / union)
  return np.array(found)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
  """Returns the average precision of scores: NaN if nothing is true.

  Args:
    scores: any shape, larger is more certain.
    truth: bool, the same shape.
  """
  scores, truth = np.ravel(scores), np.ravel(truth)
  order = np.argsort(-scores, kind='stable')
  scores, truth = scores[order], truth[order]
  last = np.flatnonzero(np.diff(scores, append=-np.inf) != 0)
  hits = np.cumsum(truth)[last]
  if not len(hits) or not hits[-1]:
    return float('nan')
  precision = hits / (last + 1)
  return float((precision * np.diff(hits, prepend=0)).sum() / hits[-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
  """Scores of one concept, or the mean over concepts.

  Attributes:
    concept: Its name.
    images: Number of images that show it.
    absent: Number of images with a map that do not show it.
    pointing: See the module; NaN without images, as are the following.
    mass: See the module.
    iou: One entry per threshold.
    pixel_ap: Average precision of pixels.
    presence_ap: Average precision of images.
  """

  concept: str
  images: int
  absent: int
  pointing: float
  mass: float
  iou: tuple[float, ...]
  pixel_ap: float
  presence_ap: float


class Tally:
  """Collects the scores of maps, one after another.

  Args:
    thresholds: For the IoU, each in (0, 1].

  Raises:
    UserError: A threshold is out of range.
  """

  def __init__(self, thresholds: Sequence[float] = THRESHOLDS):
    if bad := [t for t in thresholds if not 0 < t <= 1]:
      raise UserError(f'threshold {bad[0]} is not above 0 and at most 1.')
    self.thresholds = tuple(thresholds)
    self._rows: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    self._seen: dict[str, list[tuple[float, bool]]] = collections.defaultdict(
      list
    )

  def add(self, concept: str, heat: np.ndarray, mask: np.ndarray) -> None:
    """Adds the map of a concept for an image.

    Args:
      concept: its name.
      heat: 2-D, of any size.
      mask: bool (height, width), empty where the concept is absent.

    Raises:
      UserError: the map is not 2-D, is empty, or holds NaN or infinities.
    """
    heat = np.asarray(heat, np.float64)
    if heat.ndim != 2 or not heat.size or not np.isfinite(heat).all():
      raise UserError(
        f'a heat map of {concept!r} has shape {heat.shape}; it must be 2-D, '
        'not empty, and hold finite numbers only.'
      )
    self._seen[concept].append((float(heat.max()), bool(mask.any())))
    if mask.any():
      full = resize(heat, *mask.shape)
      one = (pointing, mass, average_precision)
      row = [score(full, mask) for score in one]
      self._rows[concept].append(
        np.append(row, iou(full, mask, self.thresholds))
      )

  def scores(self) -> list[Scores]:
    """Returns the scores of every concept, by name."""
    return [self._of(concept) for concept in sorted(self._seen)]

  def _of(self, concept: str) -> Scores:
    values, truth = map(np.array, zip(*self._seen[concept], strict=True))
    rows = self._rows.get(concept)
    empty = np.full(3 + len(self.thresholds), np.nan)
    mean = np.mean(rows, axis=0) if rows else empty
    return Scores(
      concept=concept,
      images=int(truth.sum()),
      absent=int((~truth).sum()),
      pointing=float(mean[0]),
      mass=float(mean[1]),
      pixel_ap=float(mean[2]),
      iou=tuple(mean[3:].tolist()),
      presence_ap=average_precision(values, truth),
    )


def mean(scores: Iterable[Scores]) -> Scores:
  """Returns the mean over the concepts that occur in some image.

  Every concept has the same weight; the counts are sums.

  Raises:
    UserError: no concept is in any image.
  """
  some = [one for one in scores if one.images]
  if not some:
    raise UserError('no concept is in any of the images: nothing to score.')
  average = lambda name: float(np.mean([getattr(one, name) for one in some]))
  return Scores(
    concept=f'mean of {len(some)}',
    images=sum(one.images for one in some),
    absent=sum(one.absent for one in some),
    pointing=average('pointing'),
    mass=average('mass'),
    iou=tuple(np.mean([one.iou for one in some], axis=0).tolist()),
    pixel_ap=average('pixel_ap'),
    presence_ap=average('presence_ap'),
  )
