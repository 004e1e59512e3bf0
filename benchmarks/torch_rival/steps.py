"""Training steps in PyTorch: the reference's, tuned, and the fastest known.

R0 is the step of the PartImageNet++ reference as released, with its
configuration repaired. R1 is R0 without needless costs. R2 is the fastest that
we can write.
"""

import copy
import dataclasses
from typing import Any

import torch
from torch import nn

from benchmarks.torch_rival import losses as losses

EPS = 4 / 255
STEPS = 2
MOMENTUM, DECAY, AVERAGE = 0.9, 1e-4, 0.9998


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
  """How a step is written.

  Attributes:
    tuned: Channels last, kernels selected by cuDNN's benchmark, no
      synchronisation with the device, averages of all tensors in one call; else
      NCHW, deterministic kernels, synchronisation in every step, and averages
      of one tensor after another.
    lean: The attack computes only gradients of its images and no bypass, part
      targets are sparse, and half precision is bfloat16; else float16 with a
      scaled loss.
    mode: Of torch.compile, or None.
  """

  tuned: bool = False
  lean: bool = False
  mode: str | None = None


R0 = Style()
R1 = Style(tuned=True)
R2 = Style(tuned=True, lean=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """The task of all contestants in a row of the race.

  Attributes:
    parts: Whether the loss has parts.
    robust: Whether images are attacked first.
    classes: Of the images.
    learning_rate: Of every step.
    half: Whether to compute in half precision.
  """

  parts: bool
  robust: bool
  classes: int
  learning_rate: float
  half: bool = False


class Steps:
  """Takes one step per call, from the state of the last.

  Args:
    network: Of images in [0, 1]; changed in place.
    style: How the step is written.
    task: What the step does.
  """

  def __init__(self, network: nn.Module, style: Style, task: Task):
    self.style, self.task = style, task
    self.layout = torch.contiguous_format
    if style.tuned:
      self.layout = torch.channels_last
    self.network: Any = network
    self.network = self.network.to(memory_format=self.layout).train()
    self.average = copy.deepcopy(self.network)
    self.frozen = _frozen(self.network)
    self.optimiser = _optimiser(self.network, style, task)
    kind = next(network.parameters()).device.type
    half = torch.bfloat16 if style.lean else torch.float16
    self.autocast = torch.autocast(kind, half, enabled=task.half)
    scaled = task.half and not style.lean
    self.scaler = torch.amp.GradScaler(kind, enabled=scaled)
    self.objective, self.deployed_loss = self._objective, self._deployed_loss
    if style.mode:
      compiled: Any = lambda f: torch.compile(f, mode=style.mode, dynamic=False)
      self.objective = compiled(self.objective)
      self.deployed_loss = compiled(self.deployed_loss)

  def __call__(
    self, batch: dict[str, torch.Tensor], start: torch.Tensor | None = None
  ) -> torch.Tensor:
    """Takes a step and returns its loss.

    Args:
      batch: image (B, S, S, 3) uint8, or float in [0, 1]; label (B,); parts
        (B, S/8, S/8) and source (B,), 0 for an image without parts.
      start: Where the attack starts, (B, 3, S, S); random if None.
    """
    tuned = self.style.tuned
    torch.compiler.cudagraph_mark_step_begin()
    with torch.backends.cudnn.flags(benchmark=tuned, deterministic=not tuned):
      image = batch['image'].permute(0, 3, 1, 2)
      if not image.is_floating_point():
        image = image.float() / 255
      image = image.contiguous(memory_format=self.layout)
      target = losses.soft_labels(batch['label'], self.task.classes)
      if self.task.robust:
        image = self._perturb(image, start, target)
      loss = self._train(image, target, batch['parts'], batch['source'])
    if not tuned:
      loss.item()
    return loss

  def _perturb(self, image, start, target):
    """Returns the iterate of largest mean loss, as the reference does."""
    if start is None:
      noise = (2 * torch.rand_like(image) - 1) * EPS
      start = (image + noise).clamp(0, 1)
    x = start.contiguous(memory_format=self.layout)
    climb = self._climb_lean if self.style.lean else self._climb
    best, highest = x, torch.full((), -torch.inf, device=x.device)
    for i in range(STEPS + 1):
      loss, gradient = climb(x, target, last=i == STEPS)
      if self.style.tuned:
        best = torch.where(loss > highest, x, best)
        highest = torch.maximum(loss, highest)
      elif loss > highest:
        best, highest = x, loss
      if gradient is not None:
        x = x + EPS * gradient.sign()
        x = torch.minimum(torch.maximum(x, image - EPS), image + EPS)
        x = x.clamp(0, 1)
    return best

  def _climb(self, x, target, last):
    """Returns the loss and its gradient; also computes those of the weights."""
    self.network.eval()
    x = x.detach().requires_grad_()
    with self.autocast:
      loss = losses.class_loss(self.network(x), target).mean()
    if not last:
      self.scaler.scale(loss).backward()
      if not self.style.tuned and torch.isnan(x.grad).any():
        raise FloatingPointError('The gradient of an image is not a number.')
    self.network.train()
    return loss.detach(), x.grad

  def _climb_lean(self, x, target, last):
    """Returns the loss and its gradient, and computes nothing else."""
    if last:
      with torch.no_grad():
        return self.deployed_loss(x, target).clone(), None
    x = x.detach().requires_grad_()
    loss = self.deployed_loss(x, target)
    (gradient,) = torch.autograd.grad(loss, x)
    return loss.detach().clone(), gradient

  def _deployed_loss(self, x, target):
    with self.autocast:
      return losses.class_loss(self.frozen(x), target).mean()

  def _objective(self, image, target, grid, source):
    with self.autocast:
      logits, parts = self.network(image, parts=True)
    loss = losses.class_loss(logits, target).mean()
    if not self.task.parts:
      return loss
    weight = ((grid > 0).flatten(1).any(1) & (source > 0)).float()
    lean = self.style.lean
    part_loss = losses.sparse_part_loss if lean else losses.dense_part_loss
    return loss + part_loss(parts, grid, weight)

  def _train(self, image, target, grid, source):
    loss = self.objective(image.detach(), target, grid, source)
    # Only here, to drop gradients left by the attack.
    self.optimiser.zero_grad()
    self.scaler.scale(loss).backward()
    self.scaler.step(self.optimiser)
    self.scaler.update()
    self._average()
    return loss.detach()

  @torch.no_grad()
  def _average(self):
    """Updates the average of the weights and the statistics."""
    old, new = self.average.state_dict(), self.network.state_dict()
    if not self.style.tuned:
      for name, value in new.items():
        old[name].copy_(AVERAGE * old[name] + (1 - AVERAGE) * value)
      return
    names = [name for name, value in new.items() if value.is_floating_point()]
    library: Any = torch
    library._foreach_lerp_(
      [old[name] for name in names], [new[name] for name in names], 1 - AVERAGE
    )


def _frozen(network: nn.Module) -> Any:
  """Returns a network that of the same tensors, without their gradients.

  It stays in evaluation mode, so that nothing compiles again.
  """
  shared: dict[int, Any] = {id(b): b for b in network.buffers()}
  for parameter in network.parameters():
    same = nn.Parameter(parameter.data, requires_grad=False)
    shared[id(parameter)] = same
  return copy.deepcopy(network, shared).eval()


def _optimiser(network: nn.Module, style: Style, task: Task):
  """Returns SGD as the reference has it; biases and norms do not decay."""
  parameters = list(network.parameters())
  return torch.optim.SGD(
    [
      dict(params=[p for p in parameters if p.ndim >= 2], weight_decay=DECAY),
      dict(params=[p for p in parameters if p.ndim < 2], weight_decay=0),
    ],
    lr=task.learning_rate,
    momentum=MOMENTUM,
    nesterov=True,
    fused=True if style.lean else None,
  )
