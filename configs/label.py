r"""Stage 2: pseudo part labels, predicted by the segmenter of stage 1.

  python -m pinpp_jax.main --config=configs/label.py \
      --config.source.path=IMAGENET
  python -m pinpp_jax.main --config=configs/label.py:mini
  python -m pinpp_jax.main --config=configs/label.py:smoke

The run of configs/segmenter.py labels the training images of an ImageNet copy
that are not annotated, and writes the data set `pinpp_pseudo`, which
`--config.data.pseudo` of a training run names. The same command resumes where
it was stopped. `smoke` uses an untrained network.

To label only 100 images, evenly spaced over the copy:

  python -m pinpp_jax.main --config=configs/label.py --workdir=runs/look \
      --config.limit=100 --config.output=look/1.0.0

TFDS's own copy, prepared as ArrayRecord files, is read with
`--config.source.name=imagenet2012`. Cost: not measured yet.
"""

from configs import base, segmenter


def get_config(variant='full'):
  """Returns the recipe for `variant`, one of the sizes."""
  size, _ = base.words(variant)
  recipe, trained = base.recipe(size), segmenter.get_config(size)
  config = type(recipe)()
  config.run = 'label'
  config.seed = 0
  config.distributed = False
  config.data = recipe.data
  # Shorter side of the segmenter's input.
  config.data.image_size = trained.data.image_size
  # Threads that read, decode and write: enough to keep the segmenter busy.
  config.data.threads = 16 if size == 'full' else 2

  # Folder of the segmenter's run; '' for an untrained `config.model`.
  config.segmenter = f'runs/segmenter-{size}' if size != 'smoke' else ''
  config.model = trained.model
  config.objective = trained.objective

  # Images to label: an ImageNet copy (a folder or tar; below data_dir if
  # relative), or TFDS's 'imagenet2012' (path '' for the newest in data_dir).
  # Images of the data set are left out. `wnids` are classes; () for all.
  config.source = dict(name='imagenet', path='', split='train', wnids=())
  # Number of images to label, evenly spaced over the source; 0 for all.
  config.limit = 0
  # Folder of the result, named by its version; below data_dir if relative. ''
  # for pinpp_pseudo/1.0.0.
  config.output = ''
  # Images per shard; a killed run loses at most one shard.
  config.shard_size = 1024
  config.labelling = dict(
      # Probabilities are averaged over these scales, and mirrored if `flip`.
      scales=(1.0,), flip=False,
      # Images per device and call, padded to multiples of `multiple` pixels;
      # `max_aspect` is the largest ratio of their sides.
      batch_size=16, multiple=64, max_aspect=3.0,
      # Parts of lower confidence or smaller area become background.
      min_confidence=0.0, min_area=0.0,
      # Skip unreadable images with a warning, instead of stopping.
      skip_bad=False,
      # Store the images too (130 GB for all of ImageNet), or part masks alone:
      # their images are then read from the ImageNet copy, by name.
      images=True,
  )  # fmt: skip

  # Folder of true masks <wnid>/<stem>.png of local indices to compare with; ''
  # for none.
  config.truth = ''
  # Number of labels in the report.
  config.report_samples = 24
  if size != 'full':
    shrink(config, size)
  return config


def shrink(config, size):
  """Makes the recipe small enough for two CPU cores, on the embedded data."""
  config.source.path = 'downloads/manual/pinpp_mini/imagenet'
  config.truth = 'downloads/manual/pinpp_mini/truth'
  # Not the folder of the real data's labels, whose classes differ.
  config.output = f'pinpp_pseudo_{size}/1.0.0'
  config.shard_size = 256
  config.labelling.update(batch_size=32, multiple=32)
  if size == 'smoke':
    config.labelling.batch_size = 8
    config.report_samples = 6
