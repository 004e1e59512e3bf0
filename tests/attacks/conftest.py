"""Networks and images that attacks are recorded on, and how walks compare."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

GOLDEN = pathlib.Path(__file__).parent / 'golden'


def _forward(name, weights, x):
  """Returns logits; the same networks as in record_networks.py."""

  def conv(layer, x, stride=1):
    kernel = weights[f'{name}/{layer}/kernel']
    edge = kernel.shape[0] // 2
    x = jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), [(edge, edge)] * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip
    return x + weights[f'{name}/{layer}/bias'][None, None, None]

  def dense(x):
    bias = weights[f'{name}/dense/bias'][None]
    return x @ weights[f'{name}/dense/kernel'] + bias

  x = 2 * x - 1
  if name == 'cnn':
    x = jax.nn.relu(conv('conv0', x))
    x = jax.nn.relu(conv('conv1', x, 2))
    x = jax.nn.relu(conv('conv2', x, 2))
    return dense(x.reshape(len(x), -1))
  x = jax.nn.silu(conv('stem', x, 2))
  x = jax.nn.silu(x + conv('b0', jax.nn.silu(conv('a0', x))))
  inner = conv('b1', jax.nn.silu(conv('a1', x, 2)))
  x = jax.nn.silu(conv('shortcut', x, 2) + inner)
  return dense(x.mean((1, 2)))


class Recorded:
  """Recorded numbers, and the networks that they were recorded on."""

  def __init__(self):
    self._files = {}

  def __call__(self, file):
    """Returns the arrays of a golden file."""
    if file not in self._files:
      with np.load(GOLDEN / f'{file}.npz') as stored:
        self._files[file] = dict(stored)
    return self._files[file]

  def network(self, name, dtype=np.float32):
    """Returns predict, a pytree, of 'cnn', 'resnet' or 'mlp'."""
    if name == 'mlp':
      file = self('apgd')
      arrays = [jnp.asarray(file[f'mlp/{k}'], dtype) for k in ('first', 'last')]
      flat = lambda x: (x - 0.5).reshape(len(x), -1)
      net = lambda first, last, x: jnp.tanh(flat(x) @ first) @ last
      return jax.tree_util.Partial(net, *arrays)
    weights = {
      k: jnp.asarray(x, dtype)
      for k, x in self('networks').items()
      if k.startswith(f'{name}/')
    }
    net = lambda weights, x: _forward(name, weights, x)
    return jax.tree_util.Partial(net, weights)

  def images(self, name, dtype=np.float32):
    """Returns (image, label) of a network."""
    if name == 'mlp':
      file = self('apgd')
      image, label = file['mlp/image'], file['mlp/label']
    else:
      file = self('networks')
      image = file['image'].astype(np.float32) / 255
      label = file[f'label_{name}']
    return jnp.asarray(image, dtype), jnp.asarray(label, jnp.int32)

  def start(self, name, norm, eps, dtype=np.float32):
    """Returns the start of a walk; record_networks.py makes the same."""
    noise = self('apgd')['mlp/noise'] if name == 'mlp' else None
    noise = self('networks')['noise'] if noise is None else noise
    noise = noise.astype(np.float32)
    image = np.asarray(self.images(name)[0])
    length = np.sqrt(np.square(noise).sum((1, 2, 3), keepdims=True))
    start = {
      'linf': np.clip(image + np.float32(eps / 127) * noise, 0, 1),
      'l2': np.clip(image + np.float32(eps) * (noise / length), 0, 1),
      'l1': image + noise / np.float32(40),
    }[norm]
    return jnp.asarray(start, dtype)


@pytest.fixture(scope='session')
def recorded():
  return Recorded()


@pytest.fixture(scope='session')
def prints():
  """Returns two numbers of each image that tell where it is, (..., 2).

  As in the recording programs. A difference in any pixel moves both, unless it
  is made to be orthogonal.
  """

  def function(x):
    x = np.asarray(x, np.float64)
    size = int(np.prod(x.shape[-3:]))
    along = np.random.default_rng(7).normal(size=(size, 2))
    return x.reshape(*x.shape[:-3], size) @ along

  return function
