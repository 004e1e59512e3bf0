"""A state split over the devices: less of it on each, the same numbers."""

import dataclasses
import functools

import grain
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest
import test_step

from pinpp_jax import checkpoint, sharding, step
from pinpp_jax.errors import UserError


def recipe(fsdp):
  whole = test_step.recipe()
  if fsdp == 1:
    return whole
  return dataclasses.replace(whole, mesh=sharding.mesh(fsdp))


def initial(fsdp):
  whole = test_step.initial(recipe(1), sharding.mesh(fsdp))
  return jax.device_put(whole, sharding.split(whole, sharding.mesh(fsdp)))


@functools.cache
def run(fsdp):
  """The state after two steps, and the metrics of the second."""
  current, values = initial(fsdp), {}
  for i in range(2):
    batch = sharding.put(test_step.batch(i), sharding.mesh(fsdp))
    current, values = step.train_step(
      current, batch, jax.random.key(0), recipe=recipe(fsdp)
    )
  return current, values


def bytes_of_a_device(tree):
  leaves = jax.tree.leaves(tree)
  return sum(x.addressable_shards[0].data.nbytes for x in leaves)


@pytest.mark.parametrize('fsdp', [2, 8])
class TestSplit:
  def test_the_numbers_are_those_of_whole_arrays(self, fsdp):
    ours, theirs = jax.device_get((run(fsdp), run(1)))
    test_step.close(ours, theirs, 2e-5)

  def test_a_step_leaves_it_split(self, fsdp):
    before = sharding.split(run(1)[0], sharding.mesh(fsdp))
    for x, place in zip(
      jax.tree.leaves(run(fsdp)[0]), jax.tree.leaves(before), strict=True
    ):
      assert x.sharding.is_equivalent_to(place, x.ndim)

  def test_a_device_holds_less(self, fsdp):
    ours, theirs = run(fsdp)[0], run(1)[0]
    large = sum(
      x.nbytes for x in jax.tree.leaves(theirs) if x.size >= sharding.SMALL
    )
    whole = bytes_of_a_device(theirs)
    assert large > whole / 2
    assert bytes_of_a_device(ours) == whole - large + large // fsdp


def test_it_compiles_once():
  step.train_step.clear_cache()
  run.cache_clear()
  run(8)
  assert step.train_step._cache_size() == 1


@pytest.mark.parametrize(('before', 'after'), [(8, 1), (1, 4), (4, 2)])
def test_a_checkpoint_opens_split_otherwise(before, after, tmp_path):
  values = {'large': np.arange(2.0**13).reshape(64, 128), 'small': np.ones(3)}

  def placed(fsdp):
    return jax.device_put(values, sharding.split(values, sharding.mesh(fsdp)))

  batches = iter(grain.MapDataset.range(9).to_iter_dataset())
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(3, placed(before), batches)
  fresh = jax.tree.map(jnp.zeros_like, placed(after))
  wanted = jax.tree.map(lambda x: x.sharding, placed(after))
  fresh = jax.device_put(fresh, wanted)
  with checkpoint.Checkpoints(tmp_path) as checkpoints:
    found = checkpoints.restore(fresh, batches)
  test_step.close(jax.device_get(found), jax.device_get(placed(1)), 0)
  assert jax.tree.map(lambda x: x.sharding, found) == wanted


@pytest.mark.parametrize(
  ('shape', 'spec'),
  [
    ((3, 3, 64, 128), (None, None, None, 'fsdp')),
    ((128, 1001), ('fsdp',)),
    ((1001, 128), (None, 'fsdp')),
    ((1001, 1003), ()),
    ((64,), ()),
  ],
)
def test_the_longest_dimension_that_divides(shape, spec):
  x = jax.ShapeDtypeStruct(shape, np.float32)
  found = sharding.split(x, sharding.mesh(8))
  assert found.spec == PartitionSpec(*spec)


@pytest.mark.parametrize('fsdp', [0, 3, 16])
def test_devices_that_do_not_divide(fsdp):
  with pytest.raises(UserError, match=f'fsdp={fsdp} does not divide 8 dev'):
    sharding.mesh(fsdp)
