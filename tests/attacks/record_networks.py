"""Trains the networks that attacks are tested on; writes golden/networks.npz.

Run once, with torch 2.13 on a CPU, never by a test:

  python -m tests.attacks.record_networks

Both are trained on images made here, against PGD, until about half of the
images fall at the radii of the other recording programs. What is recorded,
there and here, are weights, images and starts in 32 bits or fewer; a network is
what `forward` makes of the weights, so that training need not be repeatable.
"""

import pathlib

import numpy as np
import torch
from torch.nn import functional as F

FILE = pathlib.Path(__file__).parent / 'golden' / 'networks.npz'
IMAGES, SIZE, CLASSES = 32, 16, 10
STEPS, BATCH, RADIUS = 800, 64, 0.03
# (kernel, inputs, outputs) of each convolution.
CNN = {'conv0': (3, 3, 8), 'conv1': (3, 8, 16), 'conv2': (3, 16, 16)}
RESNET = {
  'stem': (3, 3, 8),
  'a0': (3, 8, 8),
  'b0': (3, 8, 8),
  'a1': (3, 8, 16),
  'b1': (3, 16, 16),
  'shortcut': (1, 8, 16),
}

FLOAT = torch.Tensor.float


def use(dtype):
  torch.set_default_dtype(dtype)
  double = dtype == torch.float64
  torch.Tensor.float = torch.Tensor.double if double else FLOAT


def prints(x):
  """Returns two numbers of each image that tell where it is, (..., 2).

  A difference in any pixel moves both, unless it is made to be orthogonal.
  """
  size = int(np.prod(x.shape[-3:]))
  along = np.random.default_rng(7).normal(size=(size, 2))
  return x.reshape(*x.shape[:-3], size) @ along


def forward(name, weights, x):
  """Returns logits of NCHW images; kernels are HWIO, as in JAX."""

  def conv(layer, x, stride=1):
    kernel = weights[f'{name}/{layer}/kernel'].permute(3, 2, 0, 1)
    bias = weights[f'{name}/{layer}/bias']
    return F.conv2d(x, kernel, bias, stride, kernel.shape[-1] // 2)

  def dense(x):
    return x @ weights[f'{name}/dense/kernel'] + weights[f'{name}/dense/bias']

  x = 2 * x - 1
  if name == 'cnn':
    x = F.relu(conv('conv0', x))
    x = F.relu(conv('conv1', x, 2))
    x = F.relu(conv('conv2', x, 2))
    return dense(x.permute(0, 2, 3, 1).flatten(1))
  x = F.silu(conv('stem', x, 2))
  x = F.silu(x + conv('b0', F.silu(conv('a0', x))))
  inner = conv('b1', F.silu(conv('a1', x, 2)))
  x = F.silu(conv('shortcut', x, 2) + inner)
  return dense(x.mean((2, 3)))


def load(dtype: type = np.float64):
  """Returns what is stored, as tensors: weights, NCHW images and noise."""
  with np.load(FILE) as file:
    stored = dict(file)
  weights = {
    key: torch.tensor(x.astype(dtype))
    for key, x in stored.items()
    if '/' in key
  }
  # In 32 bits first: both packages see the same numbers.
  image = (stored['image'].astype(np.float32) / 255).astype(dtype)
  noise = stored['noise'].astype(np.float32)
  nchw = lambda x: torch.tensor(x).permute(0, 3, 1, 2).contiguous()
  label = {k: torch.tensor(stored[f'label_{k}']) for k in ('cnn', 'resnet')}
  return weights, nchw(image), label, noise


def starts(image, noise, eps):
  """Returns starts of each norm, float32 NHWC, of a float32 image."""
  length = np.sqrt(np.square(noise).sum((1, 2, 3), keepdims=True))
  return {
    'linf': np.clip(image + np.float32(eps['linf'] / 127) * noise, 0, 1),
    'l2': np.clip(image + np.float32(eps['l2']) * (noise / length), 0, 1),
    'l1': image + noise / np.float32(40),
  }


def sample(rng, prototypes, count):
  """Returns (NCHW images in [0, 1], labels)."""
  label = torch.tensor(rng.integers(0, CLASSES, count))
  blobs = torch.tensor(rng.normal(size=(count, 3, 4, 4)), dtype=torch.float32)
  large = F.interpolate(
    0.5 * prototypes[label] + 0.6 * blobs, size=(SIZE, SIZE)
  )
  grain = torch.tensor(rng.normal(size=large.shape), dtype=torch.float32)
  return torch.clip(0.5 + 0.17 * large + 0.08 * grain, 0, 1), label


def perturb(net, image, label):
  x = image + RADIUS * (2 * torch.rand_like(image) - 1)
  for _ in range(4):
    x = x.detach().requires_grad_()
    loss = F.cross_entropy(net(x), label)
    step = RADIUS / 2 * torch.autograd.grad(loss, x)[0].sign()
    x = torch.clip(x.detach() + step, image - RADIUS, image + RADIUS)
  return x.clip(0, 1).detach()


def train(name, layers, prototypes, rng):
  weights = {}
  width = {'cnn': 16 * 16, 'resnet': 16}[name]
  shapes = {k: (size, size, i, o) for k, (size, i, o) in layers.items()}
  for layer, shape in (shapes | {'dense': (width, CLASSES)}).items():
    scale = (2 / np.prod(shape[:-1])) ** 0.5
    weights[f'{name}/{layer}/kernel'] = scale * torch.randn(shape)
    weights[f'{name}/{layer}/bias'] = torch.zeros(shape[-1])
  for x in weights.values():
    x.requires_grad_()
  net = lambda x: forward(name, weights, x)
  optimizer = torch.optim.Adam(weights.values(), 3e-3)
  for step in range(STEPS):
    for group in optimizer.param_groups:
      group['lr'] = 3e-3 * (1 - step / STEPS)
    image, label = sample(rng, prototypes, BATCH)
    loss = F.cross_entropy(net(perturb(net, image, label)), label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
  image, label = sample(rng, prototypes, 1000)
  right = lambda x: (net(x).argmax(1) == label).float().mean().item()
  print(name, 'clean', right(image), 'PGD', right(perturb(net, image, label)))
  return {k: v.detach() for k, v in weights.items()}


def main():
  torch.manual_seed(0)
  rng = np.random.default_rng(0)
  prototypes = torch.tensor(rng.normal(size=(CLASSES, 3, 4, 4))).float()
  weights = {}
  for name, layers in (('cnn', CNN), ('resnet', RESNET)):
    weights |= train(name, layers, prototypes, rng)
  image, _ = sample(rng, prototypes, IMAGES)
  image = np.round(image.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
  image[0, :4], image[1, :4] = 0, 255  # the box binds
  noise = np.clip(rng.normal(size=image.shape) * 42, -127, 127)
  out = {'image': image, 'noise': np.round(noise).astype(np.int8)}
  out |= {k: v.numpy() for k, v in weights.items()}
  x = torch.tensor(image.astype(np.float32) / 255).permute(0, 3, 1, 2)
  for name in ('cnn', 'resnet'):
    label = forward(name, weights, x).argmax(1).numpy()
    label[2] = (label[2] + 1) % CLASSES  # one is wrong from the start
    out[f'label_{name}'] = label
  np.savez_compressed(FILE, **out)


if __name__ == '__main__':
  main()
