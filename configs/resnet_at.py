r"""ResNet-50 (GELU) on the class labels alone, adversarially trained (PGD-2).

  python -m pinpp_jax.main --config=configs/resnet_at.py \
      --config.init.path=resnet50-11ad3fa6.pth
  python -m pinpp_jax.main --config=configs/resnet_at.py:mini
  python -m pinpp_jax.main --config=configs/resnet_at.py:smoke

Starts from torchvision's V2 weights (you provide the file). Options:
`reference`. Cost and accuracy of 80 epochs: not measured yet.
"""

from configs import base


def get_config(variant='full'):
  """Returns the recipe for `variant`, words joined by '-'."""
  size, options = base.words(variant, ('reference',))
  config = base.recipe(size)
  base.robust(config, size)
  if size == 'full':
    config.init.path = 'resnet50-11ad3fa6.pth'
  if 'reference' in options:
    base.as_reference(config)
  return config
