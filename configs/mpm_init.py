r"""The stage before adversarial training: trains bypass and classifier only.

  python -m pinpp_jax.main --config=configs/mpm_init.py \
      --config.init.path=resnet50-11ad3fa6.pth
  python -m pinpp_jax.main --config=configs/mpm_init.py:mini
  python -m pinpp_jax.main --config=configs/mpm_init.py:smoke

One clean epoch from torchvision's V2 weights (you provide the file). The
backbone's weights are frozen; its BatchNorm statistics are re-estimated for
GELU. The learning rate rises for the whole epoch, as in the reference, whose
warm-up of two epochs is longer than the run. Options: `human` (no pseudo
labels), `reference`.

Cost and accuracy: not measured yet.
"""

from configs import base


def get_config(variant='full'):
  """Returns the recipe for `variant`, words joined by '-'."""
  size, options = base.words(variant, ('human', 'reference'))
  config = base.recipe(size)
  base.with_parts(config, size, options)
  config.augment.erasing = 0.25
  config.init.part = 'backbone'
  config.optim.update(frozen=('backbone',), schedule='constant')
  config.ema_decay = 0.0
  if size == 'full':
    config.init.path = 'resnet50-11ad3fa6.pth'
    config.optim.update(epochs=1.0, warmup_epochs=2.0, truncate_warmup=True)
  if 'reference' in options:
    base.as_reference(config)
  return config
