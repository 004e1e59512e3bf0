"""How well parts and objects are segmented, on the finest label grid."""

from collections.abc import Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax import attacks, metrics
from pinpp_jax.construct import construct
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.errors import UserError
from pinpp_jax.evals import counts
from pinpp_jax.evals import examples as examples_lib

FIELDS = ('image', 'label', 'id', 'mask', 'parts', 'source')


class Segmentation:
  """Segmentation scores over the images of a split that have a mask.

  All scores are shares in [0, 1] of the cells of the finest label grid
  (28 x 28 for 224 pixels); a coarser prediction is enlarged by repetition.
  Every cell of every image with a mask (source != 0) counts, pooled over the
  split before any division. A cell's prediction is

  * open: the argmax over background and all P parts;
  * known: the argmax over background and the true class's parts only, the
    case of pseudo labels.

  Names, where `<how>` is `open` or `known`:

  * `pixel_accuracy`, `pixel_accuracy_known`: right cells over cells whose
    truth is not background. Predictions on background do not matter (the
    accuracy that the PyTorch code logs, there in percent).
  * `pixel_accuracy_bg`, `pixel_accuracy_known_bg`: right cells over all cells.
  * `part_miou_<how>`: mean of tp / (gt + pred - tp) over the parts with true
    or predicted cells. Background is not averaged, yet a part painted on
    background is a false positive. `part_miou_<how>_bg`: background is one
    more class of the mean.
  * `part_macc_<how>`, `..._bg`: mean of tp / gt over parts with true cells.
  * `part_miou_<how>_per_object`: the mean of IoU over each object class's
    parts, then over the object classes with any.
  * `object_miou`, `object_macc`, `..._bg`: the same after each true and each
    open predicted part became its object class. `object_miou_known`, ...: for
    known predictions, so the shape of the foreground alone.
  * `masked_examples`: number of images with a mask; if 0 (a split with
    classes alone) there is no other score.
  * With `bootstrap`, `<name>_low` and `<name>_high` of every score: 95 %
    interval over images by the Poisson bootstrap. Its weights come from the
    images' ids, so the interval is the same on any number of devices.

  With `targets='objects'` the model's channels are background and the K object
  classes (a model supervised by object masks). Only `pixel_accuracy`,
  `pixel_accuracy_bg` (of object classes) and the open object scores exist.

  Args:
    targets: What the model's channels mean, 'parts' or 'objects'.
    bootstrap: Number of bootstrap replicates, 0 for no interval. Memory: about
      replicates x (P + K) x 48 bytes.
    attack: Config section of an attack on the class logits, None for none.
    prefix: Put before every name as `<prefix>_`.
    limit: Evaluates only the first so many examples.
    model: Linen module whose output has 'parts'.
    batches: Makes a fresh iterator of evaluation batches (numpy).
    put: Places a batch on the devices.
    labels: Label table the split is numbered by.
    examples: Length of the split; the count is compared with it.

  Raises:
    UserError: If `targets` is neither of the two.
  """

  def __init__(
    self,
    *,
    targets: str = 'parts',
    bootstrap: int = 0,
    attack: Mapping[str, Any] | None = None,
    prefix: str = '',
    limit: int | None = None,
    model: Any,
    batches: examples_lib.Batches,
    put: examples_lib.Put,
    labels: LabelTable,
    examples: int | None = None,
  ):
    if targets not in ('parts', 'objects'):
      raise UserError(f"targets={targets!r} is neither 'parts' nor 'objects'.")
    self._parts, self._bootstrap = targets == 'parts', bootstrap
    self._attack = construct(attacks.ATTACKS, attack) if attack else None
    self._prefix, self._limit, self._examples = prefix, limit, examples
    self._model, self._batches, self._put = model, batches, put
    self._labels = labels

  def __call__(self, variables: Any, key: jax.Array) -> dict[str, float]:
    """Goes through the split once.

    Raises:
      UserError: If the model has no parts output of the right size.
      RuntimeError: If an example is missing or counts twice.
    """
    once = examples_lib.Once(self._examples, self._limit)
    tables = self._tables()
    images = seen = 0
    found = self._grids(variables, key, once)
    for grids in map(metrics.fetch, examples_lib.one_behind(found)):
      seen += int(grids['mask'].sum())
      masked = (grids['mask'] > 0) & (grids['source'] != 0)
      images += int(masked.sum())
      # Every process fetched the global batch and counts its share of it.
      masked &= np.arange(len(masked)) % jax.process_count() == (
        jax.process_index()
      )
      self._count(tables, {k: v[masked] for k, v in grids.items()})
    once.check(seen)
    if not images:
      return examples_lib.named(self._prefix, {'masked_examples': 0.0})
    scores = self._scores(metrics.sum_over_processes(tables))
    named = {k: float(v[0]) for k, v in scores.items()}
    if self._bootstrap:
      for name, value in scores.items():
        low, high = np.percentile(value[1:], (2.5, 97.5))
        named |= {f'{name}_low': float(low), f'{name}_high': float(high)}
    named['masked_examples'] = float(images)
    return examples_lib.named(self._prefix, named)

  def _grids(self, variables, key, once):
    labels = self._labels
    ids = labels.num_parts if self._parts else labels.num_classes
    for batch in examples_lib.first(self._batches(), self._limit):
      once.see(batch)
      yield predict(
        variables,
        self._put({name: batch[name] for name in FIELDS}),
        key,
        columns(labels),
        model=self._model,
        attack=self._attack,
        channels=ids + 1,
        known=self._parts,
      )

  def _tables(self):
    """Returns int64 zeros (1 + bootstrap, 3 of tp/gt/pred, ids) per table."""
    sizes = {'object_open': self._labels.num_classes + 1}
    if self._parts:
      sizes |= {
        'object_known': self._labels.num_classes + 1,
        'part_open': self._labels.num_parts + 1,
        'part_known': self._labels.num_parts + 1,
      }
    rows = 1 + self._bootstrap
    return {k: np.zeros((rows, 3, n), np.int64) for k, n in sizes.items()}

  def _count(self, tables, grids):
    weights = counts.replicates(grids['id'], self._bootstrap)
    merge = objects(self._labels)
    truth = grids['truth']
    if not self._parts:
      counts.count(tables['object_open'], merge[truth], grids['open'], weights)
      return
    for how in ('open', 'known'):
      counts.count(tables[f'part_{how}'], truth, grids[how], weights)
      counts.count(
        tables[f'object_{how}'], merge[truth], merge[grids[how]], weights
      )

  def _scores(self, tables):
    scores = {}
    for name, table in tables.items():
      level, how = name.split('_')
      known = '_known' if how == 'known' else ''
      shown = f'_{how}' if level == 'part' else known
      for bg in ('', '_bg'):
        used = table if bg else table[:, :, 1:]
        scores[f'{level}_miou{shown}{bg}'] = counts.mean_iou(used)
        scores[f'{level}_macc{shown}{bg}'] = counts.mean_accuracy(used)
        if level == 'part' or not self._parts:
          scores[f'pixel_accuracy{known}{bg}'] = counts.pixel_accuracy(used)
      if level == 'part':
        scores[f'part_miou{shown}_per_object'] = counts.mean_iou_per_object(
          table, objects(self._labels)
        )
    return scores


@functools.partial(
  jax.jit, static_argnames=('model', 'attack', 'channels', 'known')
)
def predict(
  variables: Any,
  batch: Any,
  key: jax.Array,
  columns: jax.Array,
  *,
  model: Any,
  attack: Any,
  channels: int,
  known: bool,
) -> dict[str, jax.Array]:
  """Returns int32 grids `truth`, `open` and, if asked for, `known`.

  Grids have the shape of batch['parts']. Beside them: `class` (argmax of the
  class logits) and the batch's `label`, `id`, `mask` and `source`, so that all
  can be fetched together. Without channels there is no `open` and no `known`.

  Args:
    variables: Weights and statistics.
    batch: Evaluation batch on the devices.
    key: Key of the evaluation.
    columns: (K, m) part ids of each class, see `columns`.
    model: Linen module.
    attack: Attack or None.
    channels: Number of channels that 'parts' must have, 0 to leave it out.
    known: Whether to predict with known class as well.
  """
  image = examples_lib.image(variables, batch, key, model=model, attack=attack)
  output = model.apply(variables, image, train=False, parts=True)
  grids = {'truth': batch['parts'], 'class': output['logits'].argmax(-1)}
  if channels:
    logits = finest(output, channels)
    size = batch['parts'].shape[1:]
    grids['open'] = _enlarge(logits.argmax(-1), size)
    if known:
      ids = columns[batch['label']]
      grids['known'] = _enlarge(_argmax_among(logits, ids), size)
  kept = {name: batch[name] for name in ('label', 'id', 'mask', 'source')}
  return grids | kept


def _argmax_among(logits: jax.Array, ids: jax.Array) -> jax.Array:
  """Returns (B, h, w) int: which of ids (B, m) has the largest logit."""
  # Column 0 once more stands where a class has fewer parts than m; argmax
  # takes the first of equals, so these copies change nothing.
  best = jax.vmap(lambda x, i: x[..., i])(logits, ids).argmax(-1)
  return jax.vmap(lambda i, k: i[k])(ids, best)


def finest(output: Mapping[str, Any], channels: int) -> jax.Array:
  """Returns the finest part logits (B, h, w, channels).

  Raises:
    UserError: If the model has none, or not for this label table.
  """
  if 'parts' not in output:
    raise UserError('Segmentation needs a model with a parts output.')
  logits = output['parts'][0]
  if logits.shape[-1] != channels:
    raise UserError(
      f'The model has {logits.shape[-1]} part channels and the data'
      f' {channels} with background: evaluate it on the data set it was'
      ' trained for.'
    )
  return logits


def _enlarge(grid: jax.Array, size: tuple[int, ...]) -> jax.Array:
  """Repeats the cells of (B, h, w) int to (B, *size) int32."""
  for axis, target in enumerate(size, start=1):
    if target % grid.shape[axis]:
      raise UserError(
        f'A prediction of {grid.shape[1:]} cells does not fit a label grid of'
        f' {size}.'
      )
    grid = jnp.repeat(grid, target // grid.shape[axis], axis=axis)
  return grid.astype(jnp.int32)


def columns(labels: LabelTable) -> np.ndarray:
  """Returns (K, 1 + max_parts) int32: background, then each class's part ids.

  Classes with fewer parts are filled with 0.
  """
  k = np.arange(labels.max_parts)
  first, counts = labels.first[:, None], labels.part_counts[:, None]
  ids = np.where(k[None] < counts, first + k[None], 0)
  return np.pad(ids, ((0, 0), (1, 0))).astype(np.int32)


def objects(labels: LabelTable) -> np.ndarray:
  """Returns (P + 1,) int32: from part id to class index + 1, 0 to 0."""
  of_parts = np.repeat(np.arange(labels.num_classes), labels.part_counts) + 1
  return np.concatenate([[0], of_parts]).astype(np.int32)
