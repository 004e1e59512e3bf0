"""The rule that golden numbers rest on: weights and inputs from seeds.

Golden files hold no weights. Both sides fill a model from the names of its
torch state dict, and draw images, labels, masks and noise from fixed seeds.
Arrays are in torch's layouts (NCHW, OIHW); numpy only.
"""

import pathlib
import types
from typing import Any, Protocol
import zlib

import numpy as np

CLASSES = 10
PARTS = 40  # background not counted
EPS = 4 / 255
MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
RULE_FILE = 'fill.py'


class Rule(Protocol):
  """Where weights and inputs come from: this module, or a folder's own."""

  def fill_array(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns one tensor of a state dict."""
    ...

  def image01(self, batch: int, size: int) -> np.ndarray:
    """Returns images (B, 3, S, S) float32 in [0, 1)."""
    ...

  def labels(self, batch: int, num_classes: int) -> np.ndarray:
    """Returns classes (B,) int."""
    ...

  def mask(self, batch: int, size: int, seg_classes: int) -> np.ndarray:
    """Returns part labels (B, S, S) int."""
    ...

  def noise(self, batch: int, size: int, eps: float) -> np.ndarray:
    """Returns noise (B, 3, S, S) float32."""
    ...


class OwnRule:
  """The rule as this project knows it, for a folder that does not bring one."""

  def fill_array(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns one tensor, drawn from a generator seeded by its name."""
    if key.endswith('num_batches_tracked'):
      return np.zeros(shape, np.int64)
    generator = np.random.default_rng(zlib.crc32(key.encode()))
    z = generator.standard_normal(shape)
    if key.endswith('running_var'):
      values = 1 + np.abs(z) / 10
    elif len(shape) >= 2:
      values = z * np.sqrt(2 / np.prod(shape[1:]))
    elif key.endswith('weight'):
      # The last normalisation of a residual branch is damped.
      values = (1 + z / 10) * (0.25 if key.endswith('bn3.weight') else 1)
    else:
      values = z / 10
    return values.astype(np.float32)

  def image01(self, batch: int, size: int) -> np.ndarray:
    """Returns half noise, half an 8x8 pattern of colours."""
    generator = np.random.default_rng(0)
    fine = generator.random((batch, 3, size, size))
    coarse = generator.random((batch, 3, 8, 8))
    coarse = coarse.repeat(size // 8, axis=2).repeat(size // 8, axis=3)
    return ((fine + coarse) / 2).astype(np.float32)

  def labels(self, batch: int, num_classes: int) -> np.ndarray:
    """Returns random classes."""
    return np.random.default_rng(1).integers(0, num_classes, (batch,))

  def mask(self, batch: int, size: int, seg_classes: int) -> np.ndarray:
    """Returns 5-pixel blocks, half of them background."""
    generator = np.random.default_rng(2)
    blocks = -(-size // 5)
    part = generator.integers(1, seg_classes, (batch, blocks, blocks))
    part = np.where(generator.random(part.shape) < 0.5, part, 0)
    return part.repeat(5, axis=1).repeat(5, axis=2)[:, :size, :size]

  def noise(self, batch: int, size: int, eps: float) -> np.ndarray:
    """Returns uniform noise in [-eps, eps]."""
    generator = np.random.default_rng(3)
    shape = (batch, 3, size, size)
    return generator.uniform(-eps, eps, shape).astype(np.float32)


def rule(folder: pathlib.Path) -> Any:
  """Returns the `Rule` that the folder brings in fill.py, else our own."""
  path = folder / RULE_FILE
  if not path.is_file():
    return OwnRule()
  # Executed rather than imported, so that nothing is written beside it.
  scope: dict[str, Any] = {'__name__': 'golden_fill', '__file__': str(path)}
  exec(compile(path.read_text(), str(path), 'exec'), scope)
  names = ('fill_array', 'image01', 'labels', 'mask', 'noise')
  return types.SimpleNamespace(**{name: scope[name] for name in names})
