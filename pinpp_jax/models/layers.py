"""Layers that compute the same numbers as PyTorch's, on NHWC arrays.

The reference's weights can be used here only if every layer does what torch's
does: symmetric padding, biased and unbiased batch variances, the windows of its
adaptive pooling, the exact (erf) GELU.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax.errors import UserError
from pinpp_jax.models import cpu_forms

# Uniform in +-1/sqrt(fan_in): torch's default for Conv2d and Linear.
torch_uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
# timm's and torchvision's initialisation of a ResNet's convolutions.
kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
# The authors' initialisation of ConvNeXt and ViT, without their truncation at
# +-2, a hundred standard deviations.
narrow_normal = nn.initializers.normal(0.02)

# Layer normalisation over the last axis. Statistics are always float32, and the
# variance is computed from the differences to the mean, as in torch.
LayerNorm = functools.partial(
  nn.LayerNorm, epsilon=1e-6, use_fast_variance=False
)


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
  """Returns x * Phi(x) with the exact normal CDF, in the type of `x`."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  return (0.5 * wide * (1 + jax.lax.erf(wide * np.sqrt(0.5)))).astype(x.dtype)


@gelu.defjvp
def _gelu_derivative(primals, tangents):
  """Computes the slope from `x` in the backward pass, instead of storing it.

  It uses erf(-x): XLA would recognise erf(x) in both passes and keep it in
  memory in between.
  """
  (x,), (tangent,) = primals, tangents
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  below = 0.5 * (1 - jax.lax.erf(wide * -np.sqrt(0.5)))
  density = jnp.exp(-0.5 * wide * wide) * (2 * np.pi) ** -0.5
  slope = (below + wide * density) * tangent.astype(wide.dtype)
  return gelu(x), slope.astype(x.dtype)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'relu': jax.nn.relu,
  'gelu': gelu,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
  """Returns the elementwise function called `name`, or raises UserError."""
  if name not in ACTIVATIONS:
    raise UserError(f'activation={name!r} is not one of {sorted(ACTIVATIONS)}.')
  return ACTIVATIONS[name]


def _along_rows_and_columns(
  x: jax.Array, rows: np.ndarray, columns: np.ndarray
) -> jax.Array:
  """Multiplies the two image axes by matrices of shape (new, old)."""
  # The interpolation weights must not be rounded by a fast matrix unit.
  product = jax.lax.Precision.HIGHEST
  x = jnp.einsum('bhwc,ih->biwc', x, rows.astype(x.dtype), precision=product)
  return jnp.einsum(
    'biwc,jw->bijc', x, columns.astype(x.dtype), precision=product
  )


def _bilinear_weights(old: int, new: int) -> np.ndarray:
  """Returns (new, old) weights of linear interpolation between cell centres."""
  position = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
  low = np.floor(position).astype(int)
  fraction = position - low
  weights = np.zeros((new, old))
  np.add.at(weights, (np.arange(new), low), 1 - fraction)
  # The last centre has no right neighbour and is its own neighbour.
  np.add.at(weights, (np.arange(new), np.minimum(low + 1, old - 1)), fraction)
  return weights


def resize(x: jax.Array, height: int, width: int) -> jax.Array:
  """Resizes (B, H, W, C) bilinearly, without antialiasing.

  Equals torch's `interpolate(mode='bilinear', align_corners=False)` for every
  pair of sizes; `jax.image.resize` applies antialiasing when it shrinks.
  """
  return _along_rows_and_columns(
    x,
    _bilinear_weights(x.shape[1], height),
    _bilinear_weights(x.shape[2], width),
  )


def _window_weights(old: int, new: int) -> np.ndarray:
  """Returns (new, old) weights of torch's adaptive average windows."""
  weights = np.zeros((new, old))
  for i in range(new):
    start, end = i * old // new, -(-(i + 1) * old // new)
    weights[i, start:end] = 1 / (end - start)
  return weights


def adaptive_average_pool(x: jax.Array, size: int) -> jax.Array:
  """Averages (B, H, W, C) to (B, size, size, C) over torch's windows."""
  return _along_rows_and_columns(
    x, _window_weights(x.shape[1], size), _window_weights(x.shape[2], size)
  )


class Conv(nn.Module):
  """Square convolution with torch's padding and initialisation.

  Attributes:
    features: Output channels.
    size: Of the kernel.
    stride: Of both image axes.
    padding: Zeros on every side.
    dilation: Distance of the kernel's taps in the input.
    depthwise: One filter a channel; `features` must equal the input's.
    use_bias: Whether to add a bias.
    kernel_init: Of the weights.
    dtype: Of the computation; parameters are float32.
    rewrite: See `cpu_forms.convolve`; None is `cpu_forms.fast_on_cpu()`.
  """

  features: int
  size: int = 1
  stride: int = 1
  padding: int = 0
  dilation: int = 1
  depthwise: bool = False
  use_bias: bool = False
  kernel_init: Callable[..., jax.Array] = torch_uniform
  dtype: Any = 'float32'
  rewrite: bool | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) to (B, H', W', features)."""
    inputs = 1 if self.depthwise else x.shape[-1]
    kernel = self.param(
      'kernel',
      self.kernel_init,
      (self.size, self.size, inputs, self.features),
    )
    y = cpu_forms.convolve(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      stride=self.stride,
      padding=self.padding,
      dilation=self.dilation,
      depthwise=self.depthwise,
      rewrite=cpu_forms.fast_on_cpu() if self.rewrite is None else self.rewrite,
    )
    if self.use_bias:
      bound = (self.size * self.size * inputs) ** -0.5
      bias = self.param('bias', uniform(bound), (self.features,))
      y += bias.astype(self.dtype).reshape(1, 1, 1, -1)
    return y


def uniform(bound: float) -> Callable[..., jax.Array]:
  """Returns an initialiser that draws from [-bound, bound)."""

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


class Linear(nn.Module):
  """Affine map of (B, C) to (B, features) with torch's initialisation."""

  features: int
  dtype: Any = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, C) to (B, features) in `dtype`."""
    bound = x.shape[-1] ** -0.5
    kernel = self.param('kernel', torch_uniform, (x.shape[-1], self.features))
    bias = self.param('bias', uniform(bound), (self.features,))
    y = x.astype(self.dtype) @ kernel.astype(self.dtype)
    return y + bias.astype(self.dtype).reshape(1, -1)


class SeparableConv(nn.Module):
  """Depthwise 3x3, then pointwise 1x1; nothing between, no bias."""

  features: int
  dtype: Any = 'float32'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, H, W, C) to (B, H, W, features)."""
    x = Conv(
      x.shape[-1],
      size=3,
      padding=1,
      depthwise=True,
      dtype=self.dtype,
      name='depthwise',
    )(x)
    return Conv(self.features, dtype=self.dtype, name='pointwise')(x)


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last, as in torch.

  The batch is normalised with its biased variance; the running variance
  averages the unbiased one. Statistics are always float32 (float64 for float64
  inputs). Under `jit` a batch sharded over devices has the statistics of the
  whole batch.

  Attributes:
    train: Use the batch's statistics and update the running ones.
    group: 0 for statistics of the whole batch; n to normalise every n
      consecutive images separately, as devices with n images each do without
      synchronisation, and to average their running statistics.
    scale_init: Of the scale; zeros start a residual branch as the identity.
    dtype: Of the output.
  """

  train: bool
  group: int = 0
  scale_init: Callable[..., jax.Array] = nn.initializers.ones
  dtype: Any = 'float32'

  EPSILON = 1e-5
  MOMENTUM = 0.1  # Weight of the batch in the running statistics.

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps (B, ..., C) to the same shape."""
    features = x.shape[-1]
    scale = self.param('scale', self.scale_init, (features,))
    bias = self.param('bias', nn.initializers.zeros, (features,))
    mean = self.variable('batch_stats', 'mean', jnp.zeros, (features,))
    var = self.variable('batch_stats', 'var', jnp.ones, (features,))
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if not self.train:
      return _normalise(wide, mean.value, var.value, scale, bias, self.dtype)

    grouped = wide.reshape(self._groups(x.shape[0]), -1, *x.shape[1:])
    batch_mean, batch_var = _moments(grouped)
    if not self.is_initializing():
      count = grouped[0, ..., 0].size
      keep, new = 1 - self.MOMENTUM, self.MOMENTUM
      unbiased = batch_var * (count / max(count - 1, 1))
      mean.value = keep * mean.value + new * batch_mean.mean(0)
      var.value = keep * var.value + new * unbiased.mean(0)
    y = _normalise(grouped, batch_mean, batch_var, scale, bias, self.dtype)
    return y.reshape(x.shape)

  def _groups(self, images: int) -> int:
    if not self.group:
      return 1
    if images % self.group:
      raise UserError(
        f'batch_norm_group={self.group} does not divide a batch of {images}'
        ' images; choose a divisor, or 0 for the whole batch.'
      )
    return images // self.group


def _moments(grouped: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns mean and biased variance, (G, C) each, of (G, n, ..., C)."""
  axes = tuple(range(1, grouped.ndim - 1))
  mean = grouped.mean(axes)
  # One pass over the data: XLA fuses both sums into one reduction.
  var = jnp.square(grouped).mean(axes) - jnp.square(mean)
  return mean, jnp.maximum(var, 0)


def _normalise(
  x: jax.Array,
  mean: jax.Array,
  var: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  dtype: Any,
) -> jax.Array:
  """Applies per-channel statistics: (C,) to (B, ..., C), (G, C) to (G, ...)."""
  if mean.ndim == 2:
    scale, bias = scale.reshape(1, -1), bias.reshape(1, -1)
  factor = scale * jax.lax.rsqrt(var + BatchNorm.EPSILON)
  offset = bias - mean * factor
  groups = mean.shape[0] if mean.ndim == 2 else 1
  shape = (groups, *(1,) * (x.ndim - 2), x.shape[-1])
  return (x * factor.reshape(shape) + offset.reshape(shape)).astype(dtype)
