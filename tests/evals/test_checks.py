import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.evals.autoattack import masking_signs


@pytest.mark.parametrize('norm', ['linf', 'l2', 'l1'])
def test_images_broken_where_attacks_start_may_be_flat(norm):
  image = jnp.full((3, 4, 4, 3), 0.5)

  def network(x):
    moved = jnp.any(x != 0.5, axis=(1, 2, 3))
    # The first image falls to any move, the others to none; the last one alone
    # has a gradient.
    own = jnp.where(moved & (jnp.arange(3) == 0), -1.0, 2.0)
    slope = jnp.where(jnp.arange(3) == 2, x.mean((1, 2, 3)), 0)
    return jnp.stack([own, 1 + slope, slope, -slope], -1)

  flat = masking_signs.zero_gradients(
    jax.tree_util.Partial(network), jax.random.split(jax.random.key(0), 3),
    image, jnp.zeros(3, int), norm=norm, eps=0.1,
  )  # fmt: skip
  np.testing.assert_array_equal(flat, [False, True, False])
