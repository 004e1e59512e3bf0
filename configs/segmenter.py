r"""Stage 1: the part segmenter, trained on the annotated masks.

  python -m pinpp_jax.main --config=configs/segmenter.py \
      --config.init.path=convnext_base.safetensors
  python -m pinpp_jax.main --config=configs/segmenter.py:mini
  python -m pinpp_jax.main --config=configs/segmenter.py:smoke

The paper's network is not known; this one is ours. It starts from timm's
weights of its encoder (you provide the file). Options, joined to the size by
'-': the encoders `resnet50`, `resnet101`, `convnext_tiny`, `vit_small`,
`vit_base` (DINOv2) instead of ConvNeXt-B, and `deeplab`, the decoder DeepLabV3+
instead of UPerNet.

configs/label.py uses the result. Cost and accuracy: not measured yet.
"""

from configs import base

ENCODERS = ('resnet50', 'resnet101', 'convnext_tiny', 'vit_small', 'vit_base')


def get_config(variant='full'):
  """Returns the recipe for `variant`, words joined by '-'."""
  size, options = base.words(variant, (*ENCODERS, 'deeplab'))
  config = base.recipe(size)
  encoder = next((e for e in ENCODERS if e in options), 'convnext_base')
  deeplab = 'deeplab' in options
  config.model = dict(
      name='segmenter', encoder=encoder,
      decoder='deeplabv3plus' if deeplab else 'upernet', channels=256, width=0,
      output_stride=16 if deeplab and encoder.startswith('resnet') else 32,
      dtype='bfloat16',
  )  # fmt: skip
  config.objective = dict(name='segment', dice=0.0)
  # Whole images with a label for every pixel.
  config.data.update(
      image_size=384, batch_size=64, eval_batch_size=16, scale=(0.3, 1.0),
      eval_resize=1.0, cell=1, grid_offset=0, imagenet='',
  )  # fmt: skip
  config.augment.update(smoothing=0.0, color_jitter=0.4)
  config.optim = dict(
      name='adamw', learning_rate=8e-4, min_learning_rate=1e-6,
      warmup_learning_rate=1e-6, schedule='cosine', epochs=50.0,
      warmup_epochs=1.0, weight_decay=0.05, frozen=(),
  )  # fmt: skip
  config.ema_decay = 0.999
  config.init.update(path=f'{encoder}.safetensors', part='backbone')
  config.evals = dict(parts=dict(name='segmentation', prior=True, bootstrap=0))
  config.best = 'validation/part_miou_known'
  config.final_splits = ('test',)
  config.headlines = ('test/part_miou_known', 'test/part_miou_known_prior')
  if size != 'full':
    shrink(config, size, options)
  return config


def shrink(config, size, options):
  """Makes the recipe small enough for two CPU cores, on the embedded data."""
  config.init.path = ''
  config.data.update(image_size=96, batch_size=32, eval_batch_size=32)
  config.model.update(channels=48, dtype='float32')
  if not options & set(ENCODERS):
    config.model.update(encoder='resnet10', width=16)
  config.optim.update(learning_rate=3e-2, epochs=100.0)
  config.ema_decay = 0.98
  config.update(eval_epochs=20.0, log_steps=20, checkpoint_steps=100)
  if size == 'smoke':
    config.data.update(image_size=32, batch_size=16, eval_batch_size=16)
    config.model.update(width=8, channels=8)
    config.optim.update(epochs=0.5, warmup_epochs=0.1)
    config.update(
        ema_decay=0.5, eval_epochs=0.25, log_steps=2, checkpoint_steps=4
    )  # fmt: skip
