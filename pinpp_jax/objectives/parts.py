"""Joint supervision: the class, and the parts at several scales."""

import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from pinpp_jax.errors import UserError
from pinpp_jax.objectives import classify, losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
  """Cross entropy on the class plus `weight` times the focal loss on the parts.

  PartImageNet++ (Li et al., ECCV 2024, arXiv 2407.10918). The part loss is the
  mean over the levels of the focal soft cross entropy, whose targets are the
  averages of the labels below each cell.

  Attributes:
    weight: Of the part loss against the class loss.
    smoothing: Label smoothing of the part targets. (That of the class labels
      belongs to the augmentation.)
    gamma: Focal exponent.
    ignore_blank: Leave images without any labelled cell out of the part loss.
    pseudo_weight: Weight of an image whose part mask was predicted by a
      network, against 1 for one annotated by people.
    targets: 'parts', or 'objects': every part cell is labelled with its class
      (index + 1), and the network has num_classes + 1 part channels.
    reference_targets: Targets as the PyTorch reference makes them: the finest
      output takes the corner cells of a finer grid, and coarser levels average
      the central 2x2 of the finest level's cells below them. By default every
      level averages all cells of the grid below it.
    denominator: 'valid': the weighted mean over images with a weight, 0 if
      there are none; 'all': the mean over all images, as the reference does,
      where images of weight 0 dilute the loss.
  """

  weight: float = 1.0
  smoothing: float = 0.1
  gamma: float = 2.0
  ignore_blank: bool = True
  pseudo_weight: float = 1.0
  targets: str = 'parts'
  reference_targets: bool = False
  denominator: str = 'valid'

  def __post_init__(self):
    for field, known in (
      ('targets', ('parts', 'objects')),
      ('denominator', ('valid', 'all')),
    ):
      if getattr(self, field) not in known:
        raise UserError(
          f'{field}={getattr(self, field)!r} of the parts objective is not '
          f'one of {known}.'
        )

  def __call__(
    self,
    model: nn.Module,
    variables: dict[str, Any],
    batch: dict[str, jax.Array],
    key: jax.Array,
  ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """Returns the loss, the new running statistics and scalars to log.

    Args:
      model: Network with outputs {'logits': (B, K), 'parts': list of
        (B, h, w, P + 1), finest first}.
      variables: Its params and batch_stats.
      batch: image (B, S, S, 3) float in [0, 1]; label (B,) int or (B, K);
        parts (B, G, G) int part ids with 0 for background; source (B,) int,
        0 without parts, 1 human, 2 pseudo. From a recipe that mixes images:
        parts_other (B, G, G), of the partner B - 1 - i, and parts_lam (B,) or
        (B, G, G), the share of an image's own labels. For targets='objects'
        with soft labels: class_index (B,) int.
      key: For networks that draw random numbers.
    """
    outputs, new = model.apply(
      variables,
      batch['image'],
      train=True,
      parts=True,
      mutable=['batch_stats'],
      rngs={'dropout': key},
    )
    if not outputs.get('parts'):
      raise UserError(
        'The parts objective needs a network with part outputs (mpm, '
        'two_stage); this one has none. Use objective classify for it.'
      )
    class_loss, metrics = classify.class_loss(outputs['logits'], batch['label'])
    part_loss, levels = self.part_loss(outputs['parts'], batch)
    loss = class_loss + self.weight * part_loss
    metrics = {'loss': loss, 'part_loss': part_loss} | metrics | levels
    return loss, (new.get('batch_stats', {}), metrics)

  def part_loss(
    self, logits: list[jax.Array], batch: dict[str, jax.Array]
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean over the levels, and scalars to log.

    These are each level's loss by its size, and `part_loss_human` and
    `part_loss_pseudo`: the means over the images whose masks are from people
    and from a network, 0 if the batch has none.
    """
    image_weight = self.image_weights(batch)
    pixels = self._pixel_losses(logits, batch)
    values = {
      f'part_loss_{pixel.shape[1]}': self._mean(pixel, image_weight)
      for pixel in pixels
    }
    loss = jnp.mean(jnp.stack(list(values.values())))
    image = _image_means(pixels)
    for name, code in (('human', 1), ('pseudo', 2)):
      counted = (batch['source'] == code) & (image_weight > 0)
      total = jnp.sum(jnp.where(counted, image, 0))
      values[f'part_loss_{name}'] = total / jnp.maximum(jnp.sum(counted), 1)
    return loss, values

  def image_losses(
    self, logits: list[jax.Array], batch: dict[str, jax.Array]
  ) -> jax.Array:
    """Returns each image's mean loss over levels and cells, (B,), unweighted.

    Reads only the batch's parts, and its label for targets='objects'.
    """
    return _image_means(self._pixel_losses(logits, batch))

  def _pixel_losses(self, logits, batch) -> list[jax.Array]:
    """Returns each level's loss of each cell, (B, h, w)."""
    own, other, lam = self._labels(batch)
    finest = logits[0].shape[1]
    pixels = []
    for z in logits:
      below = lambda grid, h=z.shape[1]: children(
        grid, h, finest=finest if self.reference_targets else None
      )
      labels = below(own)
      weights = jnp.ones(labels.shape, jnp.float32)
      if other is not None:
        labels = jnp.concatenate([labels, below(other)], axis=-1)
        share = below(lam)
        weights = jnp.concatenate([share, 1 - share], axis=-1)
      weights = weights / below(own).shape[-1]
      pixels.append(
        losses.focal(
          losses.sparse_cross_entropy(z, labels, weights, self.smoothing),
          self.gamma,
        )
      )
    return pixels

  def image_weights(self, batch: dict[str, jax.Array]) -> jax.Array:
    """Returns each image's weight in the part loss, (B,) float32."""
    source = batch['source']
    weight = jnp.where(source == 2, self.pseudo_weight, 1.0)
    weight = jnp.where(source == 0, 0.0, weight).astype(jnp.float32)
    if self.ignore_blank:
      weight = weight * jnp.any(batch['parts'] > 0, axis=(1, 2))
    if 'parts_lam' not in batch:
      return weight
    # A mixed image counts only if both images that it is mixed of count.
    partner = weight[::-1]
    both = jnp.where((weight > 0) & (partner > 0), (weight + partner) / 2, 0)
    lam = batch['parts_lam']
    mixed = jnp.any(lam.reshape(lam.shape[0], -1) < 1, axis=1)
    return jnp.where(mixed, both, weight)

  def _labels(self, batch):
    """Returns the label grid, the partner's, and the share of the first."""
    own, other = batch['parts'], batch.get('parts_other')
    if self.targets == 'objects':
      index = batch.get('class_index', batch['label'])
      if index.ndim == 2:
        index = jnp.argmax(index, axis=-1)
      index = index[:, None, None].astype(own.dtype) + 1
      own = jnp.where(own > 0, index, 0)
      if other is not None:
        other = jnp.where(other > 0, index[::-1], 0)
    lam = batch.get('parts_lam')
    if lam is not None:
      lam = jnp.broadcast_to(
        lam.reshape(lam.shape + (1,) * (3 - lam.ndim)), own.shape
      )
    return own, other, lam

  def _mean(self, pixel, image_weight):
    total = jnp.sum(pixel * image_weight[:, None, None])
    if self.denominator == 'all':
      return total / pixel.size
    # Without any weight: 0 / 1, and a zero gradient.
    count = jnp.sum(image_weight) * (pixel.size // pixel.shape[0])
    return total / jnp.where(count > 0, count, 1)


def _image_means(pixels: list[jax.Array]) -> jax.Array:
  levels = [jnp.mean(pixel, axis=(1, 2)) for pixel in pixels]
  return jnp.mean(jnp.stack(levels), axis=0)


def children(
  grid: jax.Array, size: int, finest: int | None = None
) -> jax.Array:
  """Returns the values of the grid's cells that each output cell averages.

  Args:
    grid: (B, G, G).
    size: Cells per side of the output.
    finest: None for all cells below an output cell. Otherwise the side of the
      network's finest output, for the PyTorch reference's rule: corner cells of
      the grid make the finest level (nearest neighbour), and an output cell
      averages the central 2x2 of those below it (bilinear, no antialiasing).

  Returns:
    (B, size, size, k).

  Raises:
    UserError: If the sizes do not divide each other.
  """
  if finest is not None:
    stride = _ratio(grid.shape[1], finest)
    grid = grid[:, ::stride, ::stride]
  ratio = _ratio(grid.shape[1], size)
  blocks = grid.reshape(grid.shape[0], size, ratio, size, ratio)
  if finest is not None and ratio > 2:
    low, high = (ratio - 1) // 2, ratio // 2 + 1
    blocks = blocks[:, :, low:high, :, low:high]
  blocks = blocks.transpose(0, 1, 3, 2, 4)
  return blocks.reshape(grid.shape[0], size, size, -1)


def _ratio(grid: int, size: int) -> int:
  if grid % size:
    raise UserError(
      f'Part labels on a {grid}x{grid} grid do not divide into the '
      f"network's {size}x{size} part output; image_size must be a multiple "
      'of 32.'
    )
  return grid // size
