"""What the parity tool computes of mixing: draws by numpy's seed, and mixes."""

import dataclasses
import itertools
import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from pinpp_jax import augment
from pinpp_jax.objectives import parts
from pinpp_jax.tools.parity import golden
from pinpp_jax.tools.parity.model import SMOOTHING, STRIDE, Arrays

MIXUP_ALPHA, CUTMIX_ALPHA = 0.8, 1.0
# Recipes that a draw may come from: whether to cut, and whether that was drawn
# (both kinds in the recipe, any probability) or given (one kind).
RECIPES = tuple(itertools.product((False, True), (True, False)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
  """One draw: the share of the class label, and the box if one is cut."""

  lam: float
  box: tuple[int, int, int, int] | None


def draw(seed: int, size: int, *, cut: bool, drawn: bool) -> Draw:
  """Returns what timm 0.9.7 draws for a batch after `np.random.seed(seed)`.

  Args:
    seed: Of numpy's legacy generator.
    size: Pixels per side.
    cut: Cutmix rather than mixup.
    drawn: Whether that took a draw.
  """
  generator = np.random.RandomState(seed)
  generator.rand()  # whether to mix at all: always
  if drawn:
    generator.rand()
  alpha = CUTMIX_ALPHA if cut else MIXUP_ALPHA
  lam = float(generator.beta(alpha, alpha))
  if not cut:
    return Draw(lam=lam, box=None)
  half = int(size * np.sqrt(1 - lam)) // 2
  centres = [generator.randint(0, size) for _ in range(2)]
  edges = [np.clip(c + d, 0, size) for c in centres for d in (-half, half)]
  top, bottom, left, right = (int(edge) for edge in edges)
  area = (bottom - top) * (right - left)
  return Draw(lam=1 - area / size**2, box=(top, bottom, left, right))


def mixing(rule: golden.Rule, stored: Arrays) -> Arrays:
  """Returns what we make of every draw of a file.

  Draws are groups of keys with a common prefix and a `seed`.
  """
  result: Arrays = {}
  prefixes = [k.removesuffix('seed') for k in stored if k.endswith('seed')]
  for prefix in prefixes:
    group = {
      k.removeprefix(prefix): v
      for k, v in stored.items()
      if k.startswith(prefix)
    }
    result |= {prefix + k: v for k, v in _group(rule, prefix, group).items()}
  return result


def _group(rule: golden.Rule, prefix: str, group: Arrays) -> Arrays:
  """Returns one draw's quantities, under every name they may go by."""
  batch_size, size = _sizes(group)
  stored_lam = float(group.get('lam', np.nan))
  draws = [
    draw(int(group['seed']), size, cut=cut, drawn=drawn)
    for cut, drawn in RECIPES
  ]
  if 'cutmix' in prefix:
    draws = [d for d in draws if d.box]
  elif 'mixup' in prefix and 'cut' not in prefix:
    draws = [d for d in draws if not d.box]
  # Which recipe it was is not recorded: the nearest.
  chosen = min(draws, key=lambda d: abs(d.lam - stored_lam))
  batch = _mixed(rule, batch_size, size, chosen)
  mean, std = (x[:, None, None] for x in (golden.MEAN, golden.STD))
  image = np.asarray(batch['image']).transpose(0, 3, 1, 2)
  names = {
    'seed': group['seed'],
    'lam': chosen.lam,
    'use_cutmix': chosen.box is not None,
    'box_yl_yh_xl_xh': chosen.box or _no_box(group.get('box_yl_yh_xl_xh')),
  }
  for leaf, value in group.items():
    level = re.fullmatch(r'(?:target_)?seg(\d)(?:_.*)?', leaf)
    if level:
      target = _target(batch, (size // 8) >> int(level[1]))
      names[leaf] = target[:, :, ::2, ::2]
    elif leaf in ('target_cls', 'target', 'cls', 'label'):
      names[leaf] = batch['label']
    elif re.fullmatch(r'(image|x|input|mixed)\w*', leaf):
      pixels = (image - mean) / std if value.min() < -0.1 else image
      names[leaf] = pixels.reshape(-1)[::STRIDE].astype(np.float32)
  return {k: np.asarray(v) for k, v in names.items() if k in group}


def _mixed(
  rule: golden.Rule, batch_size: int, size: int, chosen: Draw
) -> dict[str, np.ndarray]:
  """Returns the golden batch mixed by our augmentation."""
  label = rule.labels(batch_size, golden.CLASSES)
  mask = rule.mask(batch_size, size, golden.PARTS + 1)
  batch: dict[str, Any] = {
    'image': jnp.asarray(rule.image01(batch_size, size).transpose(0, 2, 3, 1)),
    'label': augment.soft_labels(jnp.asarray(label), golden.CLASSES, SMOOTHING),
    'parts': jnp.asarray(mask[:, ::8, ::8].astype(np.int32)),
  }
  share = jnp.full((size, size), chosen.lam, jnp.float32)
  if chosen.box:
    share = 1 - augment.inside(chosen.box, (size, size))
  mixed = augment.mix(batch, share, chosen.lam, grid_offset=0)
  return {k: np.asarray(v) for k, v in mixed.items()}


def _target(batch: dict[str, np.ndarray], size: int) -> np.ndarray:
  """Returns the dense target (B, P + 1, h, w) of a level of a mixed batch."""
  finest = batch['parts'].shape[1]
  below = lambda grid: np.asarray(
    parts.children(jnp.asarray(grid), size, finest)
  )
  channels = golden.PARTS + 1
  onehot = np.eye(channels)
  share = below(batch['parts_lam'])[..., None]
  target = onehot[below(batch['parts'])] * share
  target = target + onehot[below(batch['parts_other'])] * (1 - share)
  target = (1 - SMOOTHING) * target.mean(axis=3) + SMOOTHING / channels
  return target.transpose(0, 3, 1, 2)


def _sizes(group: Arrays) -> tuple[int, int]:
  """Returns images in the batch and pixels per side, from what was recorded."""
  labels = [v for v in group.values() if v.ndim == 2]
  batch_size = labels[0].shape[0] if labels else 4
  samples = [v.size for v in group.values() if v.ndim == 1 and v.size > 16]
  pixels = samples[0] * STRIDE / (3 * batch_size) if samples else 96**2
  return batch_size, 32 * round(np.sqrt(pixels) / 32)


def _no_box(stored: np.ndarray | None) -> np.ndarray:
  """Returns how a file may write that no box was cut: zeros or minus ones."""
  empty = np.zeros(4, int) if stored is None else np.zeros_like(stored)
  if stored is not None and (stored == -1).all():
    return empty - 1
  return empty
