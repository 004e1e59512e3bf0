"""Convolution and max pooling, rewritten for CPUs.

XLA's CPU compiler makes slow code for some convolutions and for max pooling.
Each form here gives the same result up to rounding, with operations that
compile to fast code; `rewrite=False` uses XLA's own operation.
"""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def max_pool(x: jax.Array, *, rewrite: bool | None = None) -> jax.Array:
  """Takes 3x3 maxima at stride 2: (B, H, W, C) to (B, H/2, W/2, C).

  Args:
    x: Input.
    rewrite: Use maxima of shifted copies, and masks for the gradient; by
      default `fast_on_cpu()`. Same result: the first of equal maxima gets the
      whole gradient.
  """
  rewrite = fast_on_cpu() if rewrite is None else rewrite
  return _pool_with_masks(x) if rewrite else _pool(x)


def _pool(x: jax.Array) -> jax.Array:
  return jax.lax.reduce_window(
    x,
    -np.inf,
    jax.lax.max,
    window_dimensions=(1, 3, 3, 1),
    window_strides=(1, 2, 2, 1),
    padding=((0, 0), (1, 1), (1, 1), (0, 0)),
  )


@jax.custom_vjp
def _pool_with_masks(x: jax.Array) -> jax.Array:
  """Takes maxima of three columns, then of three rows.

  XLA's CPU compiler makes scalar loops of `_pool` and its gradient.
  benchmarks/pieces/cpu_layers.py measures the gain of this and other rewrites.
  """
  return _maxima(_maxima(x, axis=2), axis=1)


def _windows(x: jax.Array, axis: int) -> list[jax.Array]:
  """Returns the first, middle and last entry of all windows along an axis."""
  around = [(0, 0)] * x.ndim
  around[axis] = (1, 1)
  padded = jnp.pad(x, around, constant_values=-np.inf)
  size = x.shape[axis]
  return [jax.lax.slice_in_dim(padded, i, i + size, 2, axis) for i in range(3)]


def _maxima(x: jax.Array, axis: int) -> jax.Array:
  return functools.reduce(jnp.maximum, _windows(x, axis))


def _to_first(x: jax.Array, y: jax.Array, g: jax.Array, axis: int) -> jax.Array:
  """Returns the gradient w.r.t. x of y = _maxima(x, axis), given that of y."""
  first, middle, last = (entry == y for entry in _windows(x, axis))
  shares = [
    jnp.where(here, g, 0)
    for here in (first, middle & ~first, last & ~middle & ~first)
  ]
  # Along the padded axis, entry 2 k ends one window and begins the next.
  at_end, at_start = ([(0, 0)] * x.ndim for _ in range(2))
  at_end[axis], at_start[axis] = (0, 1), (1, 0)
  even = jnp.pad(shares[0], at_end) + jnp.pad(shares[2], at_start)
  odd = jnp.pad(shares[1], at_end)
  shape = list(even.shape)
  shape[axis] *= 2
  padded = jnp.stack([even, odd], axis + 1).reshape(shape)
  return jax.lax.slice_in_dim(padded, 1, 1 + x.shape[axis], axis=axis)


def _pool_forward(x):
  y = _pool_with_masks(x)
  return y, (x, y)


def _pool_backward(residuals, g):
  x, y = residuals
  # Columns before rows: the first of equal maxima is the one that torch finds.
  wide = _maxima(x, axis=2)
  return (_to_first(x, wide, _to_first(wide, y, g, axis=1), axis=2),)


_pool_with_masks.defvjp(_pool_forward, _pool_backward)


# Whether XLA's own operations are asked for, see `plain`.
_PLAIN = contextvars.ContextVar('plain', default=False)

# Largest output side of a 3x3 convolution, in pixels by stride, for which
# `convolve` uses one matrix product.
SMALL = {1: 7, 2: 14}

# Largest number of output channels that XLA's CPU client computes on one core.
ONE_CORE = 64


def fast_on_cpu() -> bool:
  """Returns whether convolutions are rewritten for XLA's CPU compiler.

  Accelerators have fast convolution kernels and need none of the rewrites.
  """
  return jax.default_backend() == 'cpu' and not _PLAIN.get()


@contextlib.contextmanager
def plain() -> Iterator[None]:
  """Within it, convolutions and pooling are XLA's own on CPUs, too.

  For comparisons to the last digit: the forms differ from XLA's operations by
  rounding. What was compiled before is forgotten at both ends, because a
  compiled function keeps the forms that it was traced with.
  """
  jax.clear_caches()
  token = _PLAIN.set(True)
  try:
    yield
  finally:
    _PLAIN.reset(token)
    jax.clear_caches()


def _shifted(
  x: jax.Array, size: int, stride: int, padding: int
) -> list[jax.Array]:
  """Returns the input seen by each of size * size kernel taps, row by row."""
  x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
  return [
    x[:, i : i + height : stride, j : j + width : stride]
    for i in range(size)
    for j in range(size)
  ]


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  *,
  stride: int = 1,
  padding: int = 0,
  dilation: int = 1,
  depthwise: bool = False,
  rewrite: bool = False,
) -> jax.Array:
  """Convolves (B, H, W, C) with a square (k, k, C or 1, D) kernel.

  Args:
    x: Input.
    kernel: Weights, height, width, input and output channels; the third axis
      has length 1 if `depthwise`.
    stride: Of both image axes.
    padding: Zeros added on every side.
    dilation: Distance of the kernel's taps in the input.
    depthwise: Whether each channel has its own filter.
    rewrite: Use the form of `fast_form`, if there is one. Same result up to
      rounding.
  """
  if rewrite and dilation == 1:
    form = fast_form(x.shape, kernel.shape, stride, padding, depthwise)
    if form is not None:
      return form(x, kernel, stride, padding)
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=((padding, padding), (padding, padding)),
    rhs_dilation=(dilation, dilation),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=x.shape[-1] if depthwise else 1,
  )


def fast_form(
  shape: tuple[int, ...],
  kernel: tuple[int, ...],
  stride: int,
  padding: int,
  depthwise: bool,
) -> Callable[..., jax.Array] | None:
  """Returns a fast convolution for CPUs, (x, kernel, stride, padding) to y.

  Returns None where XLA's own convolution is no slower.
  benchmarks/pieces/cpu_convolutions.py measures the gain of each form.
  """
  size, features = kernel[0], kernel[-1]
  if depthwise:
    return _shift_and_add if (size, stride, padding) == (3, 1, 1) else None
  if (size, padding) == (1, 0):
    return _pointwise
  if (size, padding) == (3, 1) and stride in SMALL:
    if max(shape[1:3]) <= stride * SMALL[stride]:
      return _one_product
    return _on_all_cores if stride == 1 and features <= ONE_CORE else None
  even = shape[1] % 2 == shape[2] % 2 == 0
  stem = (size, stride, padding) == (7, 2, 3) and even
  return _by_blocks if stem else None


def _by_blocks(x, kernel, stride, padding):
  del stride, padding
  return _stem(x, kernel)


def _product(x: jax.Array, weights: jax.Array) -> jax.Array:
  """Multiplies the last axis of (B, H, W, C) by (C, D).

  As rows: with several axes to sum over, XLA makes a transposed copy for the
  weights' gradient and slowly computes again all that it depends on.
  """
  return (x.reshape(-1, x.shape[-1]) @ weights).reshape(*x.shape[:-1], -1)


def _pointwise(x, kernel, stride, padding):
  del padding
  return _product(x[:, ::stride, ::stride], kernel[0, 0])


def _shift_and_add(x, kernel, stride, padding):
  size = kernel.shape[0]
  taps = _shifted(x, size, stride, padding)
  filters = kernel.reshape(size * size, 1, 1, 1, -1)
  products = [filters[i] * tap for i, tap in enumerate(taps)]
  return functools.reduce(jnp.add, products)


def _one_product(x, kernel, stride, padding):
  taps = jnp.concatenate(_shifted(x, kernel.shape[0], stride, padding), -1)
  return _product(taps, kernel.reshape(-1, kernel.shape[-1]))


def _on_all_cores(x, kernel, stride, padding):
  del stride, padding
  return _parallel(x, kernel)


@jax.custom_jvp
def _parallel(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A 3x3 convolution at stride 1 with `ONE_CORE` output channels or fewer."""
  return _at_stride_1(x, kernel, ((1, 2), (1, 1)))[:, :-1]


@functools.partial(_parallel.defjvp, symbolic_zeros=True)
def _parallel_derivative(primals, tangents):
  """Pads the rows beforehand, so that the transpose enlarges the image.

  That makes XLA use Eigen, see `_at_stride_1`.
  """
  x, kernel = primals
  zero = jax.custom_derivatives.SymbolicZero
  slopes = []
  if not isinstance(tangents[0], zero):
    rows = jnp.pad(tangents[0], ((0, 0), (1, 1), (0, 0), (0, 0)))
    slopes.append(_at_stride_1(rows, kernel, ((0, 0), (1, 1))))
  if not isinstance(tangents[1], zero):
    slopes.append(convolve(x, tangents[1], padding=1))
  return _parallel(x, kernel), functools.reduce(jnp.add, slopes)


def _at_stride_1(x: jax.Array, kernel: jax.Array, padding: Any) -> jax.Array:
  """Convolves at stride 1; the padding decides which library computes it.

  XLA's CPU client has two libraries: YNNPACK, for results no larger than the
  image, divides the output channels among the cores; Eigen divides the image.
  """
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(1, 1),
    padding=padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


@jax.custom_jvp
def _stem(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The 7x7 convolution at stride 2 at the start of a ResNet."""
  return _on_blocks(x, kernel)


@functools.partial(_stem.defjvp, symbolic_zeros=True)
def _stem_derivative(primals, tangents):
  """Uses the fastest form for the result and for each gradient.

  For the image's gradient that is the transpose of `_on_rows`, for the weights'
  XLA's own (benchmarks/pieces/cpu_convolutions.py measures all three).
  """
  x, kernel = primals
  y = _on_blocks(x, kernel)
  zero = jax.custom_derivatives.SymbolicZero
  slopes = []
  if not isinstance(tangents[0], zero):
    slopes.append(_on_rows(tangents[0], kernel))
  if not isinstance(tangents[1], zero):
    slopes.append(convolve(x, tangents[1], stride=2, padding=3))
  return y, functools.reduce(jnp.add, slopes, jnp.zeros_like(y))


def _on_blocks(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes the stem by a 4x4 convolution of 2x2 blocks, stride 1."""
  batch, height, width, channels = x.shape
  x = jnp.pad(x, ((0, 0), (4, 0), (4, 0), (0, 0)))
  x = x.reshape(batch, height // 2 + 2, 2, width // 2 + 2, 2, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5).reshape(*x.shape[:2], x.shape[3], -1)
  kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
  kernel = kernel.reshape(4, 2, 4, 2, channels, -1)
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
  kernel = kernel.reshape(4, 4, 4 * channels, -1)
  # More rows than needed, so that XLA uses Eigen: see `_at_stride_1`.
  return _at_stride_1(x, kernel, ((0, 4), (0, 1)))[:, : height // 2]


def _on_rows(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Computes the stem by a 1x4 convolution of overlapping 8x2 blocks."""
  batch, height, width, channels = x.shape
  x = jnp.pad(x, ((0, 0), (4, 2), (4, 2), (0, 0)))
  x = jnp.stack([x[:, i : i + height : 2] for i in range(8)], 3)
  x = x.reshape(batch, height // 2, width // 2 + 3, -1)
  kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
  kernel = kernel.reshape(8, 4, 2, channels, -1).transpose(1, 2, 0, 3, 4)
  kernel = kernel.reshape(1, 4, 16 * channels, -1)
  return _at_stride_1(x, kernel, ((0, 0), (0, 0)))
