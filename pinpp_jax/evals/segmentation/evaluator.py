"""The segmentation evaluator: parts and objects on the label grid."""

from collections.abc import Iterator, Mapping
import functools
from typing import Any

import jax
import numpy as np

from pinpp_jax import attacks
from pinpp_jax.construct import construct
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.errors import UserError
from pinpp_jax.evals import examples as examples_lib
from pinpp_jax.evals import grids, predictions
from pinpp_jax.evals.segmentation import prior as prior_lib
from pinpp_jax.evals.segmentation import tables
from pinpp_jax.machine import processes


class Segmentation:
  """Segmentation scores over the images of a split that have a mask.

  All scores are shares in [0, 1] of the cells of the label grid, which are
  `data.cell` pixels a side: 1 is every pixel, 8 makes 28 x 28 cells for an
  image of 224. Part logits of another size are interpolated bilinearly before
  the largest is taken. Every cell of every image with a mask (source != 0)
  counts, pooled over the split before any division. A cell's prediction is

  * open: the largest among background and all P parts;
  * known: the largest among background and the true class's parts only, as for
    pseudo labels.

  A name is `<score>[_bg|_per_object][_grid][_prior]`, and `<how>` in it is
  `open` or `known`:

  * `pixel_accuracy`, `pixel_accuracy_known`: right cells over cells whose
    truth is not background. Predictions on background do not count (the
    accuracy that the PyTorch code logs, there in percent).
  * `part_miou_<how>`: mean of tp / (gt + pred - tp) over the parts with true
    or predicted cells. Background is not averaged, yet a part painted on
    background is a false positive.
  * `part_macc_<how>`: mean of tp / gt over the parts with true cells.
  * `object_miou`, `object_macc`: the same over object classes, after each true
    and each open predicted part was mapped to its object class.
    `object_miou_known`, `object_macc_known`: for known predictions, where only
    the shape of the foreground can be wrong.
  * `_bg`: background is one more class of the mean, and its cells count in
    `pixel_accuracy_bg`, the share of right cells among all.
  * `_per_object`, of `part_miou` and `part_macc`: the mean over each object
    class's parts, then over the object classes with any. Background belongs to
    no object and is left out.
  * `_grid`, of every score if labels are finer than 8 pixels: only truth and
    prediction at pixels 8 i + 4, as in labels of 8 pixels a cell.
  * `_prior`, of every known score if `prior` is set: the prediction is the
    fixed mask of the image's true class, see `prior.masks`; a baseline for
    known predictions.
  * `masked_examples`: number of images with a mask; if 0 (a split with
    classes alone) there is no other score.
  * With `bootstrap`, `<name>_low` and `<name>_high` of every score: 95 %
    interval over images by the Poisson bootstrap. Its weights come from the
    images' ids, so the interval is the same on any number of devices.

  With `targets='objects'` the model's channels are background and the K object
  classes (a model supervised by object masks). Only `pixel_accuracy` (of object
  classes) and the open object scores exist.

  Args:
    targets: What the model's channels mean, 'parts' or 'objects'.
    prior: Whether to score the location prior too. The first call then goes
      through the training split once.
    bootstrap: Number of bootstrap replicates, 0 for no interval. Memory: about
      replicates x (P + K) x 48 bytes; half of it more with `prior`, and twice
      that if labels are finer than 8 pixels.
    attack: Config section of an attack on the class logits, None for none.
    prefix: Put before every name as `<prefix>_`.
    limit: Number of examples to evaluate, from the first; None for all.
    model: Linen module whose output has 'parts'.
    batches: Makes a fresh iterator of evaluation batches (numpy) of its split;
      with the argument 'train', of the training split.
    put: Places a batch on the devices.
    labels: Label table the split is numbered by.
    examples: Length of the split; the count is compared with it.

  Raises:
    UserError: If `targets` is unknown, allows no prior, or differs from the
      attack's.
  """

  def __init__(
    self,
    *,
    targets: str = 'parts',
    prior: bool = False,
    bootstrap: int = 0,
    attack: Mapping[str, Any] | None = None,
    prefix: str = '',
    limit: int | None = None,
    model: Any,
    batches: prior_lib.Splits,
    put: examples_lib.Put,
    labels: LabelTable,
    examples: int | None = None,
  ):
    if targets not in ('parts', 'objects'):
      raise UserError(f"targets={targets!r} is neither 'parts' nor 'objects'.")
    if prior and targets == 'objects':
      raise UserError("prior=True needs targets='parts'.")
    self._parts, self._prior = targets == 'parts', prior
    self._attack: Any = construct(attacks.ATTACKS, attack) if attack else None
    if attacks.reads_parts(self._attack) and self._attack.targets != targets:
      raise UserError(
        f'The attack has targets={self._attack.targets!r} and the scores have'
        f' targets={targets!r}: give both the same.'
      )
    self._prefix, self._limit, self._examples = prefix, limit, examples
    self._model, self._batches, self._put = model, batches, put
    self._labels, self._bootstrap = labels, bootstrap

  def __call__(self, variables: Any, key: jax.Array) -> dict[str, float]:
    """Goes through the split once.

    Raises:
      UserError: If the model has no parts output of the right size, or no
        class logits to attack.
      RuntimeError: If an example is missing or counts twice.
    """
    fixed = self._class_masks if self._prior else None
    once = examples_lib.Once(self._examples, self._limit)
    counted = tables.Tables(
      self._labels, parts=self._parts, bootstrap=self._bootstrap
    )
    images = seen = 0
    found = self._predictions(variables, key, once)
    for image_size, arrays in examples_lib.one_behind(found):
      arrays = processes.fetch(arrays)
      seen += int(arrays['mask'].sum())
      masked = (arrays['mask'] > 0) & (arrays['source'] != 0)
      images += int(masked.sum())
      # Every process fetched the global batch and counts its share of it.
      masked &= np.arange(len(masked)) % jax.process_count() == (
        jax.process_index()
      )
      truth, label, ids = (
        arrays[name][masked] for name in ('truth', 'label', 'id')
      )
      ways = {k: arrays[k][masked] for k in ('open', 'known') if k in arrays}
      if fixed is not None:
        ways['prior'] = grids.nearest(fixed[label], truth.shape[1:])
      counted.add(truth, ways, ids, image_size)
    once.check(seen)
    scores = {'masked_examples': float(images)}
    if images:
      scores = counted.scores() | scores
    return examples_lib.named(self._prefix, scores)

  def _predictions(self, variables, key, once) -> Iterator[tuple[Any, Any]]:
    """Yields the size of the images and the predictions of each batch."""
    labels = self._labels
    ids = labels.num_parts if self._parts else labels.num_classes
    for batch in examples_lib.first(self._batches(), self._limit):
      once.see(batch)
      found = predictions.predict(
        variables,
        self._put({name: batch[name] for name in predictions.FIELDS})
        | {'class_parts': labels.candidates},
        key,
        model=self._model,
        attack=self._attack,
        channels=ids + 1,
        known=self._parts,
      )
      yield batch['image'].shape[1:3], found

  @functools.cached_property
  def _class_masks(self) -> np.ndarray:
    return prior_lib.masks(self._batches('train'), self._labels)
