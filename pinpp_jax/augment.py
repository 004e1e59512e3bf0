"""Augmentation on the device: colour, erasing, soft labels, mixing.

Geometry (crop and flip, of the image together with its part labels) belongs to
the data pipeline. Attacks and networks see the output of this module.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pinpp_jax.errors import UserError

# Of ImageNet's pixels, for the noise that erasing fills in.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LUMA = (0.2989, 0.587, 0.114)

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
  """Random colours and erasing for each image, one mixing for the batch.

  Attributes:
    num_classes: Length of the soft labels.
    smoothing: Label smoothing of the class labels.
    color_jitter: Brightness, contrast and saturation are each scaled by a
      factor from [1 - color_jitter, 1 + color_jitter], in random order.
    erasing: Probability that a rectangle of an image is replaced by noise.
    mixup: Parameter of the Beta distribution of mixup's share; 0 for none.
    cutmix: The same for cutmix.
    mix_probability: Probability that a batch is mixed at all.
    switch_probability: Probability of cutmix rather than mixup where both are
      on.
    grid_offset: Pixel of each cell at which part labels were sampled.
  """

  num_classes: int
  smoothing: float = 0.1
  color_jitter: float = 0.1
  erasing: float = 0.0
  mixup: float = 0.0
  cutmix: float = 0.0
  mix_probability: float = 0.0
  switch_probability: float = 0.5
  grid_offset: int = 4

  @property
  def mixes(self) -> bool:
    """Whether any batch is mixed."""
    return self.mix_probability > 0 and (self.mixup > 0 or self.cutmix > 0)

  def __call__(self, key: jax.Array, batch: Batch) -> Batch:
    """Returns the batch as the network is trained on it.

    Args:
      key: One typed key for the batch.
      batch: image (B, S, S, 3) uint8, label (B,) int, and other arrays, which
        stay as they are; parts (B, S/c, S/c) int, of cells of c pixels, is
        mixed too.

    Returns:
      The batch with image float32 in [0, 1], label (B, num_classes) float32,
      class_index (B,) int, the label as it was, and the fields of `mix` if
      batches are mixed.

    Raises:
      UserError: If images are to be mixed in pairs and their number is odd.
    """
    color_key, erase_key, mix_key = jax.random.split(key, 3)
    image = batch['image'].astype(jnp.float32) / 255
    if self.color_jitter:
      image = color_jitter(color_key, image, self.color_jitter)
    if self.erasing:
      image = erase(erase_key, image, self.erasing)
    batch = batch | {
      'image': image,
      'label': soft_labels(batch['label'], self.num_classes, self.smoothing),
      'class_index': batch['label'],
    }
    if not self.mixes:
      return batch
    if image.shape[0] % 2:
      raise UserError(
        f'A batch of {image.shape[0]} images cannot be mixed in pairs: '
        'make batch_size even, or mix_probability 0.'
      )
    pixel_share, share = self._draw_mix(mix_key, image.shape[1:3])
    return mix(batch, pixel_share, share, self.grid_offset)

  def _draw_mix(self, key, size):
    """Returns the share that each pixel, and each image, keeps of its own."""
    keys = jax.random.split(key, 5)
    cut = jnp.asarray(self.cutmix > 0)
    if self.mixup > 0 and self.cutmix > 0:
      cut = jax.random.uniform(keys[0]) < self.switch_probability
    shares = [
      jax.random.beta(k, alpha, alpha) if alpha > 0 else jnp.ones(())
      for k, alpha in zip(keys[1:3], (self.mixup, self.cutmix), strict=True)
    ]
    box = random_box(keys[3], size, shares[1])
    pixel_share = jnp.where(
      cut, 1 - inside(box, size), jnp.full(size, shares[0])
    )
    mixed = jax.random.uniform(keys[4]) < self.mix_probability
    pixel_share = jnp.where(mixed, pixel_share, 1.0)
    # For a box this is the share after clipping at the image's border.
    return pixel_share, jnp.mean(pixel_share)


def soft_labels(
  label: jax.Array, num_classes: int, smoothing: float, dtype: Any = jnp.float32
) -> jax.Array:
  """Returns (1 - s) onehot + s / K as (B, K) in `dtype`, for labels (B,)."""
  onehot = jax.nn.one_hot(label, num_classes, dtype=dtype)
  return onehot * (1 - smoothing) + smoothing / num_classes


def mix(
  batch: Batch,
  pixel_share: jax.Array,
  share: jax.Array | float,
  grid_offset: int = 4,
) -> Batch:
  """Returns the batch mixed with itself in reverse order.

  Mixup is a constant share, cutmix a share of 0 inside a box and 1 outside.

  Args:
    batch: image (B, S, S, 3) float, label (B, K), and perhaps parts
      (B, S/c, S/c) for cells of c pixels.
    pixel_share: (S, S) in [0, 1], how much of itself an image keeps.
    share: Scalar, the same for the class label.
    grid_offset: Pixel of each cell at which part labels were sampled.

  Returns:
    The batch with image and label mixed. Part labels cannot be mixed, so
    beside `parts` there are parts_other, those of the partner, and parts_lam
    (B, S/c, S/c) float32, the share of an image's own.
  """
  blend = lambda x, keep: x * keep + x[::-1] * (1 - keep)
  mixed = {
    'image': blend(batch['image'], pixel_share[None, :, :, None]),
    'label': blend(batch['label'], share),
  }
  if 'parts' in batch:
    parts = batch['parts']
    cell = pixel_share.shape[0] // parts.shape[1]
    sampled = pixel_share[grid_offset::cell, grid_offset::cell]
    mixed |= {
      'parts_other': parts[::-1],
      'parts_lam': jnp.broadcast_to(sampled[None], parts.shape),
    }
  return batch | mixed


def random_box(
  key: jax.Array, size: tuple[int, int], share: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Returns (top, bottom, left, right) of cutmix's box, as timm draws it.

  Its centre is uniform in the image, its sides are sqrt(1 - share) of the
  image's; it is clipped to the image. Integers, bottom and right exclusive.
  """
  ratio = jnp.sqrt(1 - share)
  edges = []
  for k, side in zip(jax.random.split(key), size, strict=True):
    half = (side * ratio).astype(jnp.int32) // 2
    centre = jax.random.randint(k, (), 0, side)
    edges += [
      jnp.clip(centre - half, 0, side),
      jnp.clip(centre + half, 0, side),
    ]
  return tuple(edges)


def inside(
  box: tuple[jax.Array | int, ...], size: tuple[int, int]
) -> jax.Array:
  """Returns 1 inside the box and 0 outside, (H, W) float32."""
  top, bottom, left, right = box
  rows, columns = jnp.arange(size[0]), jnp.arange(size[1])
  rows = (rows >= top) & (rows < bottom)
  columns = (columns >= left) & (columns < right)
  return (rows[:, None] & columns[None, :]).astype(jnp.float32)


def color_jitter(key: jax.Array, image: jax.Array, amount: float) -> jax.Array:
  """Returns images with random brightness, contrast and saturation.

  The three operations of torchvision's ColorJitter, in random order for each
  image, on (B, H, W, 3) in [0, 1]; without rounding to 8 bits in between.
  """
  return jax.vmap(lambda k, x: _jitter_one(k, x, amount))(
    jax.random.split(key, image.shape[0]), image
  )


def _jitter_one(key, image, amount):
  order_key, factor_key = jax.random.split(key)
  order = jax.random.permutation(order_key, 3)
  factors = jax.random.uniform(
    factor_key, (3,), minval=max(0.0, 1 - amount), maxval=1 + amount
  )
  luma = jnp.asarray(LUMA, image.dtype)[None, None]
  for i in range(3):
    # All three blend the image with another: with black, with its mean grey,
    # or with its own grey version. So a random order needs no branches.
    gray = jnp.sum(image * luma, axis=-1, keepdims=True)
    other = jnp.where(order[i] == 1, jnp.mean(gray), gray)
    other = jnp.where(order[i] == 0, 0, other)
    factor = factors[order[i]]
    image = jnp.clip(factor * image + (1 - factor) * other, 0, 1)
  return image


def erase(key: jax.Array, image: jax.Array, probability: float) -> jax.Array:
  """Returns images, in some of which a rectangle is replaced by noise.

  As timm's random erasing in pixel mode, count 1: an area of 2 to 33 %, an
  aspect ratio of 0.3 to 3.3, and normal noise with ImageNet's mean and standard
  deviation, here clipped to [0, 1].
  """
  return jax.vmap(lambda k, x: _erase_one(k, x, probability))(
    jax.random.split(key, image.shape[0]), image
  )


def _erase_one(key, image, probability):
  keys = jax.random.split(key, 6)
  height, width = image.shape[:2]
  # Ten attempts at once; the first that fits inside the image counts.
  area = jax.random.uniform(keys[0], (10,), minval=0.02, maxval=1 / 3)
  area = area * (height * width)
  log_ratio = jnp.log(0.3)
  ratio = jnp.exp(
    jax.random.uniform(keys[1], (10,), minval=log_ratio, maxval=-log_ratio)
  )
  h = jnp.round(jnp.sqrt(area * ratio)).astype(jnp.int32)
  w = jnp.round(jnp.sqrt(area / ratio)).astype(jnp.int32)
  fits = (h < height) & (w < width)
  first = jnp.argmax(fits)
  h, w = h[first], w[first]
  top = jax.random.randint(keys[2], (), 0, jnp.maximum(height - h + 1, 1))
  left = jax.random.randint(keys[3], (), 0, jnp.maximum(width - w + 1, 1))
  box = inside((top, top + h, left, left + w), (height, width)) > 0
  chosen = jax.random.uniform(keys[4]) < probability
  noise = jax.random.normal(keys[5], image.shape, image.dtype)
  mean = jnp.asarray(MEAN, image.dtype)[None, None]
  std = jnp.asarray(STD, image.dtype)[None, None]
  noise = jnp.clip(mean + std * noise, 0, 1)
  where = (box & chosen & jnp.any(fits))[:, :, None]
  return jnp.where(where, noise, image)
