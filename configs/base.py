"""Shared by all recipes: `recipe(size)` returns the sections that they change.

A variant is words joined by '-': one size (`full`, `mini`, `smoke`) and, where
a recipe has them, options, for example `mpm.py:level1-mini`.
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

SIZES = ('full', 'mini', 'smoke')


def words(variant: str, options: tuple[str, ...] = ()) -> tuple[str, set[str]]:
  """Splits a variant into its size (default `full`) and its options."""
  parts = set(variant.split('-'))
  sizes = [size for size in SIZES if size in parts]
  unknown = parts - set(SIZES) - set(options)
  if unknown or len(sizes) > 1:
    raise ValueError(
      f'variant {variant!r}: words are one of {SIZES}'
      + (f' and any of {options}' if options else '')
    )
  return (sizes[0] if sizes else 'full'), parts - set(SIZES)


def recipe(size: str) -> Any:
  """Returns the ResNet-50 recipe of the reference, clean and without parts."""
  # Not as ConfigDict: its annotations say that a section may be a number.
  config: Any = ml_collections.ConfigDict()
  config.run = 'train'
  config.seed = 0
  config.distributed = False
  # Devices over which parameters, optimiser state and average are split; 1
  # splits nothing, and every device holds them whole.
  config.fsdp = 1

  config.data = dict(
    name='pinpp',
    # '' is $TFDS_DATA_DIR, else data/ of the checkout if it is there, else
    # ~/tensorflow_datasets.
    data_dir='',
    # The hash that the data set's split must have; '' for any.
    split_hash='',
    # A data set of pseudo labels, made by configs/label.py, to add to the
    # training images: its name or folder; '' for none.
    pseudo='',
    # An ImageNet copy (folder or tar) whose other images are added to the
    # training images with their class alone; relative to data_dir.
    imagenet='',
    # The label table: a labels.json, or a text file with one wnid per line;
    # relative to data_dir. '' for the data set's, or without a data set the
    # classes of the ImageNet copy.
    labels='',
    # The split `imagenet_list`: ImageNet validation images named by a file of
    # yours (relative to data_dir); see docs/robustness.md.
    list=dict(name='', path='', hash='', preprocessing='res256crop224-bicubic'),
    image_size=224,
    batch_size=512,
    eval_batch_size=512,
    workers=8,
    threads=2,
    # Skip unreadable training images with a warning instead of stopping; reads
    # all of them once at the start.
    skip_bad=False,
    # Repeat the annotated images of small classes.
    balance=False,
    # Smallest and largest share of an image's area in a training crop, and the
    # probability of mirroring it: 0 if names of parts tell left from right.
    scale=(0.08, 1.0),
    flip=0.5,
    # Evaluation resizes the shorter side to this many image sizes, then crops.
    eval_resize=256 / 224,
    # Part labels are on a grid of cells of `cell` pixels a side, sampled at
    # pixel `grid_offset` of each: 4 of 8 is the centre.
    cell=8,
    grid_offset=4,
  )
  config.augment = dict(
      smoothing=0.1, color_jitter=0.1, erasing=0.0,
      mixup=0.0, cutmix=0.0, mix_probability=0.0,
  )  # fmt: skip
  config.model = dict(
      name='resnet', depth=50, width=64, activation='gelu', dtype='bfloat16',
      batch_norm_group=0,
  )  # fmt: skip
  # Initial weights: a run's folder, a .safetensors or a .pth file; '' for none.
  # `part` is 'all' or 'backbone' (a plain ResNet's weights without `fc`); `key`
  # names the state dict in a file with several.
  config.init = dict(
      path='', part='all', key=config_dict.placeholder(str),
  )  # fmt: skip
  config.objective = dict(name='classify')
  config.attack = dict(name='none')
  # The attack's step size grows over these epochs, per step or per epoch.
  config.attack_warmup = dict(epochs=0.0, by_epoch=False)
  config.optim = dict(
      name='sgd', learning_rate=0.2, min_learning_rate=1e-3,
      warmup_learning_rate=1e-3, schedule='cosine', epochs=100.0,
      warmup_epochs=2.0, momentum=0.9, nesterov=True, weight_decay=1e-4,
      frozen=(),
  )  # fmt: skip
  config.ema_decay = 0.9998

  # Scores are named <split>/<score>; `best` decides which weights are kept and
  # reported.
  config.evals = dict(clean=dict(name='accuracy'))
  config.eval_epochs = 1.0
  config.eval_split = 'validation'
  config.final_splits = ('test',)
  config.best = 'validation/clean_accuracy'
  # Images in the report, and the scores printed at the end.
  config.report_samples = 24
  config.headlines = (
      'test/clean_accuracy', 'test/pgd10_accuracy', 'test/part_miou_known',
      'test/part_miou_known_prior', 'test/part_miou_open',
      'imagenet_validation/clean_accuracy',
      'imagenet_validation/pgd10_accuracy', 'imagenet_list/clean_accuracy',
      'imagenet_list/pgd10_accuracy',
  )  # fmt: skip

  config.log_steps = 50
  config.checkpoint_steps = 500
  # Log the stacks of all threads when no step has ended for so long; 0 for
  # never.
  config.stall_minutes = 30.0
  # First and last step to profile, such as (10, 20), into <workdir>/profile; ()
  # for none.
  config.profile = ()
  shrink(config, size)
  return config


def shrink(config: Any, size: str) -> None:
  """Makes the recipe small enough for two CPU cores, on the embedded data."""
  if size == 'full':
    return
  config.data.update(
      name='pinpp_mini', image_size=96, batch_size=64, eval_batch_size=64,
      workers=0, threads=2, scale=(0.45, 1.0),
      imagenet='downloads/manual/pinpp_mini/imagenet',
  )  # fmt: skip
  config.model.update(depth=10, width=16, dtype='float32')
  config.optim.update(
      learning_rate=1.6, epochs=16.0, warmup_epochs=0.5, weight_decay=5e-4,
  )  # fmt: skip
  config.update(
      ema_decay=0.98, eval_epochs=4.0, log_steps=10, checkpoint_steps=50,
      final_splits=('test', 'imagenet_validation'),
  )  # fmt: skip
  if size == 'smoke':
    config.data.update(
        image_size=32, batch_size=16, eval_batch_size=16, imagenet='',
    )  # fmt: skip
    config.model.update(width=8)
    config.optim.update(epochs=0.5, warmup_epochs=0.1)
    config.update(
        ema_decay=0.5, eval_epochs=0.25, log_steps=2, checkpoint_steps=4,
        final_splits=('test',),
    )  # fmt: skip


def robust(config: Any, size: str) -> None:
  """Adds PGD-2 training at L-inf 4/255 and PGD-10 validation."""
  eps = 4 / 255
  config.attack = dict(
      name='pgd', norm='linf', eps=eps, steps=2, step_size=eps, best='example',
  )  # fmt: skip
  config.attack_warmup.epochs = {'full': 2.0, 'mini': 5.0, 'smoke': 0.1}[size]
  config.optim.min_learning_rate = 1e-2
  if size == 'full':
    config.optim.epochs = 80.0
  measure_pgd(config, size)
  config.best = 'validation/pgd10_accuracy'


def measure_pgd(config: Any, size: str) -> None:
  """Adds the validation attack: ten steps of a quarter of the radius."""
  eps = 4 / 255
  config.evals.pgd10 = dict(
      name='accuracy', prefix='pgd10',
      attack=dict(name='pgd', norm='linf', eps=eps,
                  steps=2 if size == 'smoke' else 10, step_size=eps / 4,
                  best='last'),
  )  # fmt: skip


def with_parts(config: Any, size: str, options: set[str]) -> None:
  """Turns the classifier into MPM under joint supervision.

  Trains on annotated masks and pseudo labels, with the option `human` on the
  annotated masks alone.
  """
  if size != 'smoke' and 'human' not in options:
    config.data.pseudo = 'pinpp_pseudo' + ('_mini' if size == 'mini' else '')
  config.model.update(name='mpm', level=3, top_down=True)
  config.objective = dict(
      name='parts', weight=1.0, smoothing=0.1, ignore_blank=True,
      pseudo_weight=1.0, targets='parts',
  )  # fmt: skip
  config.evals.parts = dict(name='segmentation', targets='parts', prior=True)


def as_reference(config: Any) -> None:
  """Turns on all optional behaviour of the PyTorch reference."""
  config.data.grid_offset = 0
  config.model.batch_norm_group = min(64, config.data.batch_size)
  if config.objective.name == 'parts':
    config.objective.update(reference_targets=True, denominator='all')
  if config.attack.name == 'pgd':
    config.attack.best = 'batch'
    config.attack_warmup.by_epoch = True
