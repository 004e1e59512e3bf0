r"""Robust accuracy: AutoAttack at L-inf 4/255 on RobustBench's 5,000 images.

  python -m pinpp_jax.main --config=configs/eval_robustness.py \
      --config.init.path=runs/mpm-full --config.data.imagenet=IMAGENET \
      --config.data.list.path=imagenet_test_image_ids.txt
  python -m pinpp_jax.main --config=configs/eval_robustness.py:mini
  python -m pinpp_jax.main --config=configs/eval_robustness.py:smoke

The network is that of the run in the folder `init.path`. Options, joined to the
size by '-', for files of weights instead: `mpm`, a checkpoint of the official
PartImageNetPP code, and `resnet50`, timm's or torchvision's:

  python -m pinpp_jax.main --config=configs/eval_robustness.py:mpm \
      --config.init.path=MPM.pth --config.init.key=state_dict_ema ...

You provide the list (below data_dir unless absolute); the results name it and
the preprocessing. PartImageNet++ itself evaluates with
`--config.data.list.preprocessing=res256crop224-bicubic`. `mini` scores the run
runs/mpm-mini on the test split of the embedded data set, `smoke` an untrained
network. See docs/robustness.md.

Cost: not measured yet.
"""

from configs import base

LIST = 'imagenet_list'
# Number of parts in the official weights; the classes evaluated here need not
# have any.
OFFICIAL_PARTS = 3310


def get_config(variant='full'):
  """Returns the recipe for `variant`, words joined by '-'."""
  size, options = base.words(variant, ('mpm', 'resnet50'))
  config = base.recipe(size)
  config.run = 'evaluate'
  # Further fields replace those of the run.
  config.model = dict(name='from_run', dtype='float32')
  if 'mpm' in options:
    config.model = dict(
        name='mpm', depth=50, width=64, activation='gelu', dtype='float32',
        level=3, top_down=True, num_parts=OFFICIAL_PARTS,
    )  # fmt: skip
  if 'resnet50' in options:
    config.model = dict(
        name='resnet', depth=50, width=64, activation='relu', dtype='float32',
    )  # fmt: skip
  # Needs no built data set: the classes are the run's, or ImageNet's.
  config.data.update(name='', workers=0, threads=8, eval_batch_size=256)
  config.data.list.update(
      name='rb5k', path='imagenet_test_image_ids.txt',
      preprocessing='res256crop224-bilinear',
  )  # fmt: skip
  config.evals.autoattack = dict(
      name='autoattack', norm='linf', eps=4 / 255, version='standard',
      batch_size=256, individual=False, save_adversarial=False,
  )  # fmt: skip
  config.final_splits = (LIST,)
  if size != 'full':
    shrink(config, size)
  split = config.final_splits[0]
  version = 'custom' if size == 'smoke' else 'standard'
  config.headlines = (
      f'{split}/clean_accuracy',
      *(f'{split}/{version}_{norm}_accuracy' for norm in ('linf', 'l2', 'l1')),
  )  # fmt: skip
  return config


def shrink(config, size):
  """Makes the recipe small enough for two CPU cores, on the embedded data."""
  recipe = base.recipe(size)
  config.data.update(recipe.data)
  config.final_splits = ('test',)
  config.evals.autoattack.batch_size = 64
  config.init.path = 'runs/mpm-mini'
  if size == 'smoke':
    config.init.path = ''
    config.model = recipe.model
    config.evals.autoattack.update(
        version='custom', batch_size=16,
        attacks=dict(**{'apgd-ce': dict(steps=2), 'square': dict(queries=4)}),
    )  # fmt: skip
