"""A tiny split, a tiny model and a random attack for the evaluators."""

import dataclasses
import functools
import types

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax import attacks, models
from pinpp_jax.data.labels import LabelTable, Part
from pinpp_jax.evals import accuracy, samples
from pinpp_jax.evals.segmentation import evaluator

COUNTS = (2, 3, 0, 1)  # The third class has no parts.
SIZE = 32
CELLS = SIZE // 8


class Tiny(nn.Module):
  """Linear in the image: logits of the mean pixel, parts of 8 x 8 means."""

  num_classes: int = 4
  num_parts: int = 6
  stride: int = 8
  has_parts: bool = True
  has_logits: bool = True

  @nn.compact
  def __call__(self, image, *, train=False, parts=False):
    output = {}
    if self.has_logits:
      output['logits'] = nn.Dense(self.num_classes)(image.mean((1, 2)) * 20)
    if parts and self.has_parts:
      window = (self.stride, self.stride)
      cells = nn.avg_pool(image, window, window)
      scores = nn.Dense(self.num_parts + 1)(cells * 20 - 10)
      output['parts'] = [scores, cells]
    return output


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
  """Adds uniform noise: one key per image."""

  eps: float

  def __call__(self, keys, predict, image, label):
    def one(key):
      return jax.random.uniform(key, image.shape[1:], minval=-1.0)

    return jnp.clip(image + self.eps * jax.vmap(one)(keys), 0, 1)


@pytest.fixture
def noise(monkeypatch):
  monkeypatch.setitem(attacks.ATTACKS, 'noise', Noise)
  return {'name': 'noise', 'eps': 0.2}


@pytest.fixture(scope='session')
def table():
  return tiny_table()


@pytest.fixture(scope='session')
def split(table):
  return tiny_split(table)


def tiny_table():
  wnids = tuple(f'n{i:08}' for i in range(len(COUNTS)))
  parts = []
  for wnid, count in zip(wnids, COUNTS, strict=True):
    for k in range(1, count + 1):
      parts.append(
        Part(
          global_id=len(parts) + 1,
          wnid=wnid,
          object_name=f'object {wnid}',
          name=f'{wnid} part {k}',
          generic_name=f'part {k}',
          local_index=k,
          parent=(),
          count=1,
        )
      )
  return LabelTable(
    wnids=wnids,
    object_names=tuple(f'object {wnid}' for wnid in wnids),
    parts=tuple(parts),
  )


def tiny_split(table, *, cell=8, seed=0):
  """21 examples as one big batch without padding."""
  rng, n = np.random.default_rng(seed), 21
  label = rng.integers(0, len(COUNTS), n).astype(np.int32)
  local = rng.integers(0, 4, (n, SIZE // cell, SIZE // cell))
  limit = np.asarray(table.part_counts)[label][:, None, None]
  first = np.asarray(table.first)[label][:, None, None]
  parts = np.where((local > 0) & (local <= limit), first + local - 1, 0)
  # Blocks of one colour, so that predictions vary over the grid.
  blocks = rng.integers(0, 256, (n, CELLS, CELLS, 3))
  image = blocks.repeat(8, 1).repeat(8, 2).astype(np.uint8)
  return {
    'image': image,
    'label': label,
    'parts': parts.astype(np.int32),
    'candidates': table.candidates[label],
    'source': np.array([0, 1, 2] * (n // 3), np.int32),
    'index': np.arange(n, dtype=np.int32),
    'id': rng.integers(0, 2**32, n).astype(np.uint32),
    'mask': np.ones(n, np.float32),
  }


def batches_of(split, size, order=None):
  """Yields padded batches; an `order` may repeat or leave out examples."""
  n = len(split['mask'])
  order = np.arange(n) if order is None else np.asarray(order)
  for start in range(0, len(order), size):
    rows = order[start : start + size]
    padding = size - len(rows)
    batch = {
      k: np.concatenate([v[rows], np.repeat(v[:1], padding, 0)])
      for k, v in split.items()
    }
    batch['mask'][len(rows) :] = 0
    yield batch


def put(batch):
  mesh = jax.make_mesh((8,), ('data',), (jax.sharding.AxisType.Auto,))
  spec = jax.sharding.PartitionSpec('data')
  return jax.device_put(batch, jax.sharding.NamedSharding(mesh, spec))


def tiny_scores(put, index=0, count=1):
  """Runs everything on one process's rows of each batch of eight."""
  table = tiny_table()
  splits = {
    'test': tiny_split(table, cell=4),
    'train': tiny_split(table, cell=4, seed=1),
  }
  model = Tiny()
  variables = model.init(
    jax.random.key(1), np.zeros((1, SIZE, SIZE, 3), np.float32), parts=True
  )

  def batches(split='test'):
    for batch in batches_of(splits[split], 8):
      yield {k: v[index::count] for k, v in batch.items()}

  fields = dict(model=model, batches=batches, put=put, labels=table)
  key = jax.random.key(0)
  # As numpy: weights of one process alone cannot meet arrays of all.
  variables = jax.device_get(variables)
  scores = accuracy.Accuracy(
    attack={'name': 'noise', 'eps': 0.2}, prefix='', examples=21, **fields
  )(variables, key)
  scores |= evaluator.Segmentation(prior=True, bootstrap=5, limit=13, **fields)(
    variables, key
  )
  found = samples.samples(variables, key, number=5, **fields)
  # The order inside a global batch is that of the processes.
  sums = sorted(float(sample.image.sum()) for sample in found)
  return scores | {f'image {i}': value for i, value in enumerate(sums)}


@pytest.fixture(scope='session')
def mpm():
  """A tiny MPM for the tiny split, with weights."""
  model = models.MPM(num_classes=4, num_parts=6, depth=10, width=4)
  init = functools.partial(model.init, train=False, parts=True)
  image = np.zeros((1, SIZE, SIZE, 3), np.float32)
  # As numpy: the same weights on one device and on eight.
  variables = jax.device_get(jax.jit(init)(jax.random.key(1), image))
  # Sure of itself, so that an attack makes a difference.
  classifier = variables['params']['classifier']
  classifier['kernel'] = 30 * classifier['kernel']
  return model, variables


@pytest.fixture(scope='session')
def tiny():
  """Returns a model with its weights, and helpers to run evaluators."""

  def make(**fields):
    model = Tiny(**fields)
    image = jnp.zeros((1, SIZE, SIZE, 3))
    return model, model.init(jax.random.key(1), image, parts=True)

  return types.SimpleNamespace(
    make=make,
    split=tiny_split,
    batches_of=batches_of,
    put=put,
    scores=tiny_scores,
  )
