import dataclasses
import functools
import re

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.errors import UserError
from pinpp_jax.objectives import OBJECTIVES, parts
from pinpp_jax.objectives.parts import Parts

CLASSES, CHANNELS, BATCH = 5, 11, 4


class Net(nn.Module):
  """The outputs of a part model, from almost nothing."""

  sizes: tuple[int, ...] = (8, 4, 2)

  @nn.compact
  def __call__(self, image, *, train, parts=False):
    x = nn.BatchNorm(use_running_average=not train)(image)
    outputs = {'logits': nn.Dense(CLASSES)(x.mean((1, 2)))}
    if parts:
      outputs['parts'] = []
      for size in self.sizes:
        r = image.shape[1] // size
        cells = x.reshape(x.shape[0], size, r, size, r, 3).mean((2, 4))
        outputs['parts'].append(nn.Dense(CHANNELS)(cells))
    return outputs


@functools.partial(jax.jit, static_argnums=0)
def part_loss(objective, zs, batch):
  return objective.part_loss(zs, batch)[0]


def make_batch(seed=0, grid=8):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, CHANNELS, (BATCH, grid, grid)).astype(np.int32)
  return {
    'image': rng.random((BATCH, 16, 16, 3)).astype(np.float32),
    'label': rng.integers(0, CLASSES, BATCH).astype(np.int32),
    'parts': labels,
    'source': np.ones(BATCH, np.int32),
  }


def logits_like(batch, sizes=(8, 4, 2), seed=1):
  rng = np.random.default_rng(seed)
  b = batch['parts'].shape[0]
  return [
    rng.normal(size=(b, s, s, CHANNELS)).astype(np.float32) for s in sizes
  ]


def dense_grid(labels, smoothing):
  onehot = np.eye(CHANNELS)[labels]
  return (1 - smoothing) * onehot + smoothing / CHANNELS


def average(target, size):
  b, g, _, c = target.shape
  r = g // size
  return target.reshape(b, size, r, size, r, c).mean((2, 4))


def focal_mean(z, target, weight, denominator):
  log_p = jax.nn.log_softmax(jnp.asarray(z))
  ce = -jnp.sum(jnp.asarray(target) * log_p, -1)
  pixel = (1 - jnp.exp(-ce)) ** 2 * ce
  total = jnp.sum(pixel * jnp.asarray(weight)[:, None, None])
  if denominator == 'all':
    return total / pixel.size
  return total / (np.sum(weight) * pixel.shape[1] ** 2)


def check_against(objective, batch, zs, targets, weight):
  """Value and gradient of the loss against the dense definition."""
  dense = lambda zs: (
    sum(
      focal_mean(z, t, weight, objective.denominator)
      for z, t in zip(zs, targets, strict=True)
    )
    / len(zs)
  )
  sparse = lambda zs: part_loss(objective, zs, batch)
  value, gradient = jax.jit(jax.value_and_grad(sparse))(zs)
  expected, expected_gradient = jax.jit(jax.value_and_grad(dense))(zs)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  for mine, theirs in zip(gradient, expected_gradient, strict=True):
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('denominator', ['valid', 'all'])
def test_loss_equals_the_dense_definition(denominator):
  objective = Parts(denominator=denominator, pseudo_weight=0.5)
  batch = make_batch()
  batch['source'] = np.array([1, 2, 0, 1], np.int32)
  batch['parts'][3] = 0
  targets = [average(dense_grid(batch['parts'], 0.1), s) for s in (8, 4, 2)]
  check_against(objective, batch, logits_like(batch), targets, [1, 0.5, 0, 0])


@pytest.mark.parametrize('denominator', ['valid', 'all'])
def test_mixed_loss_equals_the_dense_definition(denominator):
  objective = Parts(denominator=denominator)
  batch = make_batch()
  batch['parts'][0] = 0
  lam = np.array([0.7, 0.7, 0.7, 0.7], np.float32)
  batch |= {'parts_other': batch['parts'][::-1], 'parts_lam': lam}
  grid = dense_grid(batch['parts'], 0.1)
  grid = grid * 0.7 + grid[::-1] * 0.3
  targets = [average(grid, s) for s in (8, 4, 2)]
  # The partner of a blank image is not scored either.
  check_against(objective, batch, logits_like(batch), targets, [0, 1, 1, 0])


def test_pasted_cells_take_the_partners_labels():
  """A share for every cell (cutmix), averaged into the coarser levels."""
  batch = make_batch()
  lam = np.ones((BATCH, 8, 8), np.float32)
  lam[:, 1:4, 3:8] = 0
  pasted = np.where(lam > 0, batch['parts'], batch['parts'][::-1])
  batch |= {'parts_other': batch['parts'][::-1], 'parts_lam': lam}
  grid = dense_grid(pasted, 0.1)
  targets = [average(grid, s) for s in (8, 4, 2)]
  check_against(Parts(), batch, logits_like(batch), targets, [1, 1, 1, 1])


def test_unmixed_batches_of_a_mixing_recipe_keep_their_weights():
  batch = make_batch()
  batch['parts'][0] = 0
  mixed = batch | {
    'parts_other': batch['parts'][::-1],
    'parts_lam': np.ones(BATCH, np.float32),
  }
  np.testing.assert_array_equal(Parts().image_weights(mixed), [0, 1, 1, 1])
  zs = logits_like(batch)
  np.testing.assert_allclose(
    part_loss(Parts(), zs, mixed),
    part_loss(Parts(), zs, batch),
    rtol=1e-6,
  )


def test_reference_targets_are_nearest_then_bilinear():
  """Against what torch.nn.functional.interpolate computes, by its formula."""
  batch = make_batch()
  objective = Parts(reference_targets=True)
  grid = dense_grid(batch['parts'], 0.1)
  central = grid.reshape(BATCH, 2, 4, 2, 4, CHANNELS)[:, :, 1:3, :, 1:3]
  targets = [grid, average(grid, 4), central.mean((2, 4))]
  check_against(objective, batch, logits_like(batch), targets, [1] * BATCH)
  corner = grid[:, ::2, ::2]
  check_against(
    objective,
    batch,
    logits_like(batch, (4, 2)),
    [corner, average(corner, 2)],
    [1] * BATCH,
  )


def test_coarse_models_average_the_whole_grid():
  batch = make_batch()
  grid = dense_grid(batch['parts'], 0.1)
  check_against(
    Parts(), batch, logits_like(batch, (2,)), [average(grid, 2)], [1] * BATCH
  )


def test_objects_are_classes_shifted_by_one():
  batch = make_batch()
  objects = np.where(batch['parts'] > 0, batch['label'][:, None, None] + 1, 0)
  zs = logits_like(batch)
  soft = np.eye(CLASSES, dtype=np.float32)[batch['label']]
  expected = part_loss(Parts(), zs, batch | {'parts': objects})
  for label in (batch['label'], soft):
    value = part_loss(Parts(targets='objects'), zs, batch | {'label': label})
    np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_losses_by_who_drew_the_masks():
  batch = make_batch() | {'source': np.array([1, 2, 0, 1], np.int32)}
  zs = logits_like(batch)
  _, logged = Parts().part_loss(zs, batch)
  for name, keep in (('human', [1, 0, 0, 1]), ('pseudo', [0, 1, 0, 0])):
    alone = batch | {'source': np.array(keep, np.int32)}
    expected = part_loss(Parts(), zs, alone)
    np.testing.assert_allclose(logged[f'part_loss_{name}'], expected, 1e-6)
  nobody = batch | {'source': np.zeros(4, np.int32)}
  _, logged = Parts().part_loss(zs, nobody)
  assert logged['part_loss_human'] == logged['part_loss_pseudo'] == 0


def test_a_batch_without_any_part_has_no_part_loss():
  batch = make_batch()
  batch['parts'][:] = 0
  zs = logits_like(batch)
  value, gradient = jax.value_and_grad(
    lambda zs: part_loss(Parts(), zs, batch)
  )(zs)
  assert value == 0
  assert all((g == 0).all() for g in gradient)


def test_blank_images_count_when_asked():
  batch = make_batch()
  batch['parts'][0] = 0
  weights = Parts(ignore_blank=False).image_weights(batch)
  np.testing.assert_array_equal(weights, [1, 1, 1, 1])


@pytest.mark.parametrize('name', ['classify', 'parts'])
def test_objective_returns_loss_statistics_and_scalars(key, name):
  model, batch = Net(), make_batch()
  variables = model.init(key, batch['image'], train=False, parts=True)
  loss, (stats, metrics) = jax.jit(
    lambda v, b: OBJECTIVES[name]()(model, v, b, key)
  )(variables, batch)
  assert metrics['loss'] == loss
  assert all(np.shape(m) == () for m in metrics.values())
  before = jax.tree.leaves(variables['batch_stats'])
  after = jax.tree.leaves(stats)
  assert any((a != b).any() for a, b in zip(before, after, strict=True))
  expected = metrics['class_loss']
  if name == 'parts':
    expected += metrics['part_loss']
    levels = [metrics[f'part_loss_{s}'] for s in (8, 4, 2)]
    np.testing.assert_allclose(metrics['part_loss'], np.mean(levels), 1e-6)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def dense_arrays(jaxpr):
  """Yields (primitive name, dtype) of every (..., C) result, inner ones too."""
  for equation in jaxpr.eqns:
    for variable in equation.outvars:
      if variable.aval.ndim == 4 and variable.aval.shape[-1] == CHANNELS:
        yield equation.primitive.name, variable.aval.dtype
    for value in equation.params.values():
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from dense_arrays(inner)


def test_no_dense_target_is_built():
  """All (B, H, W, C) arrays are functions of the logits alone."""
  batch = make_batch()
  gradient = jax.grad(lambda zs: part_loss(Parts(), zs, batch))
  jaxpr = jax.make_jaxpr(gradient)(logits_like(batch))
  dense = list(dense_arrays(jaxpr.jaxpr))
  assert dense  # the gradient itself, for one
  # A one-hot compares an iota with labels: integers and booleans.
  assert not [name for name, dtype in dense if dtype != jnp.float32]
  hot = jax.make_jaxpr(lambda x: jax.nn.one_hot(x, CHANNELS))(batch['parts'])
  assert [n for n, dtype in dense_arrays(hot.jaxpr) if dtype != jnp.float32]


def test_sharded_batch_gives_the_same_loss_without_moving_logits():
  batch = make_batch()
  batch = {k: np.concatenate([v, v]) for k, v in batch.items()}
  batch['source'][3] = 0
  zs = logits_like(batch)
  mesh = jax.make_mesh(
    (8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  put = lambda x: jax.device_put(
    x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  )
  call = jax.jit(jax.value_and_grad(lambda zs, b: part_loss(Parts(), zs, b)))
  expected, expected_gradient = call(zs, batch)
  sharded = jax.tree.map(put, (zs, batch))
  value, gradient = call(*sharded)
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  np.testing.assert_allclose(gradient[0], expected_gradient[0], atol=1e-8)
  text = call.lower(*sharded).compile().as_text()
  assert not re.search('all-gather|all-to-all|collective-permute', text)


def test_sizes_that_do_not_divide_are_refused():
  with pytest.raises(UserError, match='multiple of 32'):
    parts.children(jnp.zeros((1, 7, 7)), 2)


def test_unknown_options_are_refused():
  with pytest.raises(UserError, match='denominator'):
    dataclasses.replace(Parts(), denominator='some')


def test_a_network_without_part_outputs_is_refused(key):
  model, batch = Net(sizes=()), make_batch()
  variables = model.init(key, batch['image'], train=False)
  with pytest.raises(UserError, match='classify'):
    Parts()(model, variables, batch, key)
