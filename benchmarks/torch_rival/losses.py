"""Class and part losses in PyTorch: over dense soft targets, and sparse.

Targets are those of the reference: smoothed, coarser levels interpolated from
the finest one.
"""

from typing import Any

import torch
from torch.nn import functional

SMOOTHING = 0.1
GAMMA = 2


def soft_labels(label: torch.Tensor, classes: int) -> torch.Tensor:
  """Returns smoothed distributions (B, K) float32 for labels (B,)."""
  onehot = functional.one_hot(label, classes).float()
  return onehot * (1 - SMOOTHING) + SMOOTHING / classes


def class_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
  """Returns each image's soft cross entropy, (B,)."""
  log_p = functional.log_softmax(logits.float(), -1)
  return -(target * log_p).sum(-1)


def focal(cross_entropy: torch.Tensor) -> torch.Tensor:
  """Returns (1 - p)^2 ce with p = exp(-ce)."""
  return (1 - torch.exp(-cross_entropy)) ** GAMMA * cross_entropy


def dense_targets(
  grid: torch.Tensor, channels: int, sizes: list[int]
) -> list[torch.Tensor]:
  """Returns soft targets (B, C, h, w) float32 of each level, finest first.

  Args:
    grid: Part ids of the finest level, (B, h, w).
    channels: C.
    sizes: Sides of the levels.
  """
  onehot = functional.one_hot(grid, channels).permute(0, 3, 1, 2).float()
  finest = onehot * (1 - SMOOTHING) + SMOOTHING / channels
  # The reference mixes batches, also when the share of the partner is 0.
  share = 1.0
  finest = finest * share + finest.flip(0) * (1 - share)
  resize: Any = functional.interpolate
  return [finest] + [
    resize(finest, (n, n), mode='bilinear', align_corners=False)
    for n in sizes[1:]
  ]


def dense_part_loss(
  outputs: list[torch.Tensor], grid: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
  """Returns the parts loss by its definition, targets included.

  Args:
    outputs: Part logits (B, C, h, w), finest first.
    grid: Part ids of the finest level, (B, h, w).
    weight: Of each image, (B,); images of weight 0 dilute the mean.
  """
  channels = outputs[0].shape[1]
  targets = dense_targets(grid, channels, [z.shape[2] for z in outputs])
  levels = []
  for z, target in zip(outputs, targets, strict=True):
    batch, _, height, width = z.shape
    z = z.permute(0, 2, 3, 1).reshape(-1, channels)
    target = target.permute(0, 2, 3, 1).reshape(-1, channels)
    entropy = -(target * functional.log_softmax(z.float(), -1)).sum(-1)
    pixel = focal(entropy).reshape(batch, height, width)
    levels.append((pixel * weight[:, None, None]).mean())
  return torch.stack(levels).mean()


class SparseEntropy(torch.autograd.Function):
  """Cross entropy with the mean of a few labels, smoothed; (B, C, h, w)."""

  @staticmethod
  def forward(ctx: Any, z, labels):
    """Returns (B, h, w) float32 for labels (B, k, h, w)."""
    wide = z.float()
    log_sum = torch.logsumexp(wide, 1)
    picked = z.gather(1, labels).float().mean(1)
    ctx.save_for_backward(z, labels, log_sum)
    return log_sum - (1 - SMOOTHING) * picked - SMOOTHING * wide.mean(1)

  @staticmethod
  def backward(ctx: Any, cotangent):
    """Returns the gradient to the logits, the one array of their size."""
    z, labels, log_sum = ctx.saved_tensors
    cotangent = cotangent[:, None]
    gradient = torch.exp(z.float() - log_sum[:, None])
    gradient = (gradient - SMOOTHING / z.shape[1]) * cotangent
    share = (1 - SMOOTHING) / labels.shape[1]
    picked = (-share * cotangent).expand(labels.shape).contiguous()
    return gradient.scatter_add(1, labels, picked).to(z.dtype), None


def sparse_part_loss(
  outputs: list[torch.Tensor], grid: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
  """Returns the same as `dense_part_loss`, without dense targets."""
  levels = []
  for z in outputs:
    labels = below(grid, z.shape[2])
    pixel = focal(SparseEntropy.apply(z, labels))
    levels.append((pixel * weight[:, None, None]).mean())
  return torch.stack(levels).mean()


def below(grid: torch.Tensor, size: int) -> torch.Tensor:
  """Returns the labels that bilinear interpolation averages, (B, k, h, w)."""
  batch, side, _ = grid.shape
  ratio = side // size
  if ratio == 1:
    return grid[:, None]
  low, high = (ratio - 1) // 2, ratio // 2 + 1
  blocks = grid.reshape(batch, size, ratio, size, ratio)
  blocks = blocks[:, :, low:high, :, low:high].permute(0, 2, 4, 1, 3)
  return blocks.reshape(batch, -1, size, size)
