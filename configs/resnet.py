r"""ResNet-50 (GELU) on the class labels alone, clean images.

  python -m pinpp_jax.main --config=configs/resnet.py
  python -m pinpp_jax.main --config=configs/resnet.py:mini
  python -m pinpp_jax.main --config=configs/resnet.py:smoke

Options: `reference` (the PyTorch reference's behaviour wherever ours differs).
Cost and accuracy of 100 epochs: not measured yet.
"""

from configs import base


def get_config(variant='full'):
  """Returns the recipe for `variant`, words joined by '-'."""
  size, options = base.words(variant, ('reference',))
  config = base.recipe(size)
  if 'reference' in options:
    base.as_reference(config)
  return config
