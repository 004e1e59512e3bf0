r"""MPM: joint supervision by classes and parts, clean images, from scratch.

  python -m pinpp_jax.main --config=configs/mpm_clean.py
  python -m pinpp_jax.main --config=configs/mpm_clean.py:mini
  python -m pinpp_jax.main --config=configs/mpm_clean.py:smoke

Options: `human` (no pseudo labels), `reference`. Cost and accuracy of 100
epochs: not measured yet.
"""

from configs import base


def get_config(variant='full'):
  """Returns the recipe for `variant`, words joined by '-'."""
  size, options = base.words(variant, ('human', 'reference'))
  config = base.recipe(size)
  base.with_parts(config, size, options)
  if 'reference' in options:
    base.as_reference(config)
  return config
