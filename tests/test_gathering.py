"""What processes tell each other arrives whole."""

import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax.machine import processes


def test_fetch_gathers_sharded_arrays():
  mesh = jax.make_mesh((8,), ('data',), (jax.sharding.AxisType.Auto,))
  spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  value = np.arange(16)
  got = processes.fetch({'x': jax.device_put(value, spec), 'y': 3})
  np.testing.assert_array_equal(got['x'], value)
  assert isinstance(got['x'], np.ndarray) and got['y'] == 3


def test_the_sum_of_one_process():
  tree = {'a': np.array([2**40, 3], np.int64)}
  got = processes.sum_of_all(tree)
  assert got['a'].dtype == np.int64
  np.testing.assert_array_equal(got['a'], tree['a'])


def test_the_sum_keeps_64_bits(monkeypatch):
  tree = {'n': np.array([2**40 + 1, -5], np.int64), 'x': np.float64(1 / 3)}
  monkeypatch.setattr(jax, 'process_count', lambda: 3)
  monkeypatch.setattr(
    processes.multihost_utils,
    'process_allgather',
    lambda x: jnp.stack([jnp.asarray(x)] * 3),
  )
  got = processes.sum_of_all(tree)
  np.testing.assert_array_equal(got['n'], 3 * tree['n'])
  assert got['x'] == 1 / 3 + 1 / 3 + 1 / 3
