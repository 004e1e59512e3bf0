"""Layers against torch.nn, and batch normalisation against itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.errors import UserError
from pinpp_jax.models import cpu_forms, layers


@pytest.fixture
def torch():
  return pytest.importorskip('torch')


def _image(*shape: int) -> np.ndarray:
  values = np.random.default_rng(0).normal(1.0, 2.0, shape)
  return values.astype(np.float32)


def _to_torch(torch, x):
  return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def _from_torch(x):
  return x.detach().numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize('size', [7, 8, 12])
def test_max_pool_is_torch(torch, size):
  x = _image(2, size, size, 3) - 10
  expected = torch.nn.MaxPool2d(3, 2, 1)(_to_torch(torch, x))
  np.testing.assert_array_equal(cpu_forms.max_pool(x), _from_torch(expected))


@pytest.mark.parametrize('old', [1, 2, 3, 4, 7, 9])
def test_adaptive_pool_is_torch(torch, old):
  x = _image(2, old, old + 1, 3)
  expected = torch.nn.AdaptiveAvgPool2d(4)(_to_torch(torch, x))
  actual = layers.adaptive_average_pool(x, 4)
  np.testing.assert_allclose(actual, _from_torch(expected), atol=1e-6)


@pytest.mark.parametrize(
  'old, new', [(3, 6), (7, 14), (7, 5), (14, 4), (5, 5), (1, 4), (4, 1)]
)
def test_resize_is_torch(torch, old, new):
  x = _image(2, old, old + 2, 3)
  expected = torch.nn.functional.interpolate(
    _to_torch(torch, x), (new, new + 3), mode='bilinear', align_corners=False
  )
  actual = layers.resize(x, new, new + 3)
  np.testing.assert_allclose(actual, _from_torch(expected), atol=1e-5)


def test_gelu_is_torch(torch):
  x = np.linspace(-6, 6, 1001, dtype=np.float32)
  theirs = torch.from_numpy(x).requires_grad_()
  expected = torch.nn.functional.gelu(theirs)
  y, slope = jax.vjp(layers.gelu, jnp.asarray(x))
  np.testing.assert_allclose(y, expected.detach(), atol=1e-6)
  expected.sum().backward()
  np.testing.assert_allclose(slope(jnp.ones_like(y))[0], theirs.grad, atol=1e-6)


@pytest.mark.parametrize('rewrite', [False, True])
@pytest.mark.parametrize(
  'size, stride, padding, depthwise',
  [
    (1, 1, 0, False),
    (1, 2, 0, False),
    (3, 1, 1, False),
    (3, 2, 1, False),
    (7, 2, 3, False),
    (4, 1, 0, False),
    (3, 1, 1, True),
  ],
)
@pytest.mark.parametrize('image_size', [7, 8])
def test_conv_is_torch(
  torch, size, stride, padding, depthwise, rewrite, image_size
):
  x = _image(2, image_size, image_size, 4)
  inputs, outputs = (1, 4) if depthwise else (4, 5)
  kernel = _image(size, size, inputs, outputs)
  expected = torch.nn.functional.conv2d(
    _to_torch(torch, x),
    torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()),
    stride=stride,
    padding=padding,
    groups=4 if depthwise else 1,
  )
  actual = cpu_forms.convolve(
    jnp.asarray(x),
    jnp.asarray(kernel),
    stride=stride,
    padding=padding,
    depthwise=depthwise,
    rewrite=rewrite,
  )
  np.testing.assert_allclose(
    actual, _from_torch(expected), rtol=1e-5, atol=1e-4
  )


def test_separable_conv_is_torch(torch, key):
  x = _image(2, 6, 6, 4)
  layer = layers.SeparableConv(5)
  variables = layer.init(key, x)
  depthwise = torch.nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False)
  pointwise = torch.nn.Conv2d(4, 5, 1, bias=False)
  for module, name in ((depthwise, 'depthwise'), (pointwise, 'pointwise')):
    kernel = np.asarray(variables['params'][name]['kernel'])
    weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    assert module.weight.shape == weight.shape
    module.weight.data = weight
  expected = pointwise(depthwise(_to_torch(torch, x)))
  np.testing.assert_allclose(
    layer.apply(variables, x), _from_torch(expected), rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize('shape', [(4, 3, 5, 6), (4, 6)])
def test_batch_norm_is_torch(torch, key, shape):
  x = _image(*shape)
  flat = x.ndim == 2
  module = (torch.nn.BatchNorm1d if flat else torch.nn.BatchNorm2d)(6)
  module.weight.data = torch.from_numpy(_image(6))
  module.bias.data = torch.from_numpy(_image(6) ** 2)
  to, back = (
    (torch.from_numpy, lambda t: t.detach().numpy())
    if flat
    else (lambda a: _to_torch(torch, a), _from_torch)
  )
  variables = {
    'params': {'scale': module.weight.detach().numpy().copy()}
    | {'bias': module.bias.detach().numpy().copy()},
    'batch_stats': {'mean': np.zeros(6), 'var': np.ones(6)},
  }
  train = layers.BatchNorm(train=True)
  for i in range(3):
    y, update = train.apply(variables, x + i, mutable=['batch_stats'])
    variables |= update
    np.testing.assert_allclose(y, back(module(to(x + i))), atol=1e-5)
  stats = variables['batch_stats']
  np.testing.assert_allclose(stats['mean'], module.running_mean, rtol=1e-5)
  np.testing.assert_allclose(stats['var'], module.running_var, rtol=1e-5)
  module.eval()
  y = layers.BatchNorm(train=False).apply(variables, x)
  np.testing.assert_allclose(y, back(module(to(x))), atol=1e-5)


def _norm(x, group):
  layer = layers.BatchNorm(train=True, group=group)
  variables = layer.init(jax.random.key(0), x)
  y, update = layer.apply(variables, x, mutable=['batch_stats'])
  return y, update['batch_stats']


def test_group_of_the_whole_batch_is_global():
  x = _image(4, 3, 3, 2)
  jax.tree.map(np.testing.assert_array_equal, _norm(x, 4), _norm(x, 0))


def test_groups_are_separate_batches_with_averaged_statistics():
  x = _image(6, 3, 3, 2)
  x[2:] += 5
  y, stats = _norm(x, 2)
  alone = [_norm(x[i : i + 2], 0) for i in (0, 2, 4)]
  for i, (expected, _) in enumerate(alone):
    np.testing.assert_allclose(y[2 * i : 2 * i + 2], expected, atol=1e-6)
  for name in ('mean', 'var'):
    mean = np.mean([s[name] for _, s in alone], axis=0)
    np.testing.assert_allclose(stats[name], mean, rtol=1e-6)


def test_group_must_divide_the_batch():
  with pytest.raises(UserError, match='batch_norm_group=4'):
    _norm(_image(6, 3, 3, 2), 4)


@pytest.mark.parametrize('group', [0, 2])
def test_statistics_do_not_depend_on_the_devices(group):
  x = _image(16, 3, 3, 2)
  mesh = jax.make_mesh(
    (8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  spread = jax.jit(_norm, static_argnums=1)(jax.device_put(x, split), group)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    spread,
    _norm(x, group),
  )


def test_batch_norm_of_bfloat16_keeps_float32_statistics():
  x = jnp.asarray(_image(8, 16, 16, 2), jnp.bfloat16)
  layer = layers.BatchNorm(train=True, dtype='bfloat16')
  variables = layer.init(jax.random.key(0), x)
  y, update = layer.apply(variables, x, mutable=['batch_stats'])
  assert y.dtype == jnp.bfloat16
  mean = update['batch_stats']['mean']
  assert mean.dtype == jnp.float32
  exact = np.asarray(x, np.float64).mean((0, 1, 2))
  np.testing.assert_allclose(mean, 0.1 * exact, rtol=1e-5)


@pytest.mark.parametrize('offset', [30.0, 300.0])
def test_batch_norm_survives_a_large_mean(offset):
  """The variance of a channel is not lost next to the square of its mean."""
  x = (_image(16, 16, 16, 1) * 0.5 + offset).astype(np.float32)
  _, stats = _norm(x, 0)
  exact = 0.9 + 0.1 * np.var(x.astype(np.float64), ddof=1)
  np.testing.assert_allclose(stats['var'], [exact], rtol=2e-3)


def test_initialisation_is_torchs(key):
  image = jnp.zeros((1, 8, 8, 64))
  conv = layers.Conv(128, size=3, use_bias=True).init(key, image)['params']
  bound = (3 * 3 * 64) ** -0.5
  for name in ('kernel', 'bias'):
    assert abs(conv[name]).max() == pytest.approx(bound, rel=0.03)
    assert conv[name].std() == pytest.approx(bound / 3**0.5, rel=0.1)
  deep = layers.Conv(64, size=3, depthwise=True).init(key, image)['params']
  assert abs(deep['kernel']).max() == pytest.approx(1 / 3, rel=0.03)
  linear = layers.Linear(256).init(key, jnp.zeros((1, 64)))['params']
  assert abs(linear['kernel']).max() == pytest.approx(1 / 8, rel=0.03)
  assert abs(linear['bias']).max() == pytest.approx(1 / 8, rel=0.03)
  kaiming = layers.Conv(128, size=3, kernel_init=layers.kaiming_normal)
  kernel = kaiming.init(key, image)['params']['kernel']
  assert kernel.std() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)


def test_unknown_activation_is_named():
  with pytest.raises(UserError, match='swish'):
    layers.activation('swish')


@pytest.mark.parametrize('size', [8, 9])
@pytest.mark.parametrize('levels', [0, 3])
def test_the_rewritten_pool_has_the_same_gradient(size, levels):
  x = np.random.default_rng(0).standard_normal((2, size, size, 5))
  # Rounded numbers make many equal maxima.
  x = jnp.asarray(np.round(x) if levels else x, jnp.float32)

  def weighted(x, rewrite):
    y = cpu_forms.max_pool(x, rewrite=rewrite)
    return jnp.sum(y * jnp.sin(jnp.arange(y.size)).reshape(y.shape))

  for function in (weighted, jax.grad(weighted)):
    np.testing.assert_allclose(
      function(x, True), function(x, False), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize('size', [1, 3])
def test_products_sum_their_weight_gradient_over_one_axis(size):
  x, kernel = jnp.ones((2, 6, 6, 3)), jnp.ones((size, size, 3, 4))

  def total(kernel):
    padding = size // 2
    y = cpu_forms.convolve(x, kernel, stride=2, padding=padding, rewrite=True)
    return y.sum()

  jaxpr = jax.make_jaxpr(jax.grad(total))(kernel)
  products = [e for e in jaxpr.eqns if e.primitive.name == 'dot_general']
  summed = [e.params['dimension_numbers'][0][0] for e in products]
  assert summed and all(len(axes) == 1 for axes in summed)


@pytest.mark.parametrize('size', [16, 18])
def test_the_rewritten_stem_has_the_same_gradients(size):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((2, size, size, 3)), jnp.float32)
  kernel = jnp.asarray(rng.standard_normal((7, 7, 3, 4)), jnp.float32)

  def squares(x, kernel, rewrite):
    y = cpu_forms.convolve(x, kernel, stride=2, padding=3, rewrite=rewrite)
    return jnp.sum(y**2)

  for function in (squares, jax.grad(squares), jax.grad(squares, argnums=1)):
    a, b = (function(x, kernel, rewrite) for rewrite in (True, False))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('features', [4, cpu_forms.ONE_CORE])
def test_the_parallel_convolution_has_the_same_derivatives(features):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((2, 12, 9, 5)), jnp.float32)
  kernel = jnp.asarray(rng.standard_normal((3, 3, 5, features)), jnp.float32)

  def squares(x, kernel, rewrite):
    y = cpu_forms.convolve(x, kernel, padding=1, rewrite=rewrite)
    return jnp.sum(y**2)

  def along(x, kernel, rewrite):
    call = lambda x, kernel: squares(x, kernel, rewrite)
    return jax.jvp(call, (x, kernel), (x, kernel))[1]

  def steepness(x, kernel, rewrite):
    return jnp.sum(jax.grad(squares)(x, kernel, rewrite) ** 2)

  gradients = [jax.grad(squares, argnums=i) for i in (0, 1)]
  for function in (squares, *gradients, along, jax.grad(steepness)):
    a, b = (function(x, kernel, rewrite) for rewrite in (True, False))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * jnp.abs(b).max())


def test_wide_convolutions_are_left_to_xla():
  kernel = 3, 3, 5, cpu_forms.ONE_CORE + 1
  assert cpu_forms.fast_form((2, 12, 9, 5), kernel, 1, 1, False) is None


# Form: shape of the image, shape of the kernel, options of the convolution.
FORMS = {
  'pointwise': ((2, 14, 14, 64), (1, 1, 64, 32), dict(stride=2)),
  'one product': ((2, 14, 14, 32), (3, 3, 32, 32), dict(stride=2, padding=1)),
  'all cores': ((2, 20, 20, 32), (3, 3, 32, 32), dict(padding=1)),
  'depthwise': (
    (2, 14, 14, 32),
    (3, 3, 1, 32),
    dict(padding=1, depthwise=True),
  ),
  'stem': ((2, 32, 32, 3), (7, 7, 3, 16), dict(stride=2, padding=3)),
}


def _results(x, kernel, options, rewrite, dtype):
  """Returns the convolution and its two gradients as float64 arrays."""
  x, kernel = x.astype(dtype), kernel.astype(dtype)
  call = functools.partial(cpu_forms.convolve, rewrite=rewrite, **options)
  y, pull = jax.vjp(call, x, kernel)
  weights = np.random.default_rng(2).standard_normal(y.shape).astype(dtype)
  return [np.asarray(r, np.float64) for r in (y, *pull(jnp.asarray(weights)))]


@pytest.mark.parametrize('name', FORMS)
def test_a_form_is_as_accurate_as_xla(name):
  """Each result's error against float64 is at most twice that of XLA's own."""
  shape, kernel_shape, options = FORMS[name]
  rng = np.random.default_rng(0)
  x = rng.standard_normal(shape).astype(np.float32)
  kernel = rng.standard_normal(kernel_shape).astype(np.float32)
  with jax.enable_x64(True):
    exact = _results(x, kernel, options, False, np.float64)
  form = _results(x, kernel, options, True, np.float32)
  plain = _results(x, kernel, options, False, np.float32)
  for true, ours, xla in zip(exact, form, plain, strict=True):
    scale = np.sqrt(np.mean(true**2))
    errors = [np.sqrt(np.mean((r - true) ** 2)) / scale for r in (ours, xla)]
    assert errors[0] <= 2 * errors[1] + 2e-8, errors
    assert errors[0] < 1e-6


def test_plain_leaves_convolutions_to_xla():
  with cpu_forms.plain():
    assert not cpu_forms.fast_on_cpu()
  assert cpu_forms.fast_on_cpu()
