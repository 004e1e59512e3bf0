r"""Stage 2: pseudo part labels, drawn by the segmenter of stage 1.

  python -m pinpp_jax.main --config=configs/label.py \
      --config.source.path=IMAGENET
  python -m pinpp_jax.main --config=configs/label.py:mini
  python -m pinpp_jax.main --config=configs/label.py:smoke

The run of configs/segmenter.py labels the training images of an ImageNet copy
that nobody annotated, and writes the data set `pinpp_pseudo`, which
`--config.data.pseudo` of a training run names. The same command goes on where
it was stopped. `smoke` takes a network without any training.

A first look, at 100 images from all over the copy:

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
  # Shorter side of an image as the segmenter sees it.
  config.data.image_size = trained.data.image_size
  # They read, decode and write; the segmenter must not wait for them.
  config.data.threads = 16 if size == 'full' else 2

  # Folder of the segmenter's run; '' is one without training, of this model.
  config.segmenter = f'runs/segmenter-{size}' if size != 'smoke' else ''
  config.model = trained.model
  config.objective = trained.objective

  # Images to label: an ImageNet copy (a folder or tar; below data_dir if
  # relative), or 'imagenet2012', TFDS's (path '' is the newest in data_dir).
  # Those of the data set are left out. `wnids` are classes, all if empty.
  config.source = dict(name='imagenet', path='', split='train', wnids=())
  # Only so many images, from all over the source: a first look. 0 is all.
  config.limit = 0
  # Folder of the result, a version number; below data_dir if relative. '' is
  # pinpp_pseudo/1.0.0.
  config.output = ''
  # Images of a shard: what is lost at most when the run is killed.
  config.shard_size = 1024
  config.labelling = dict(
      # Probabilities are averaged over sizes, and mirrored images if asked.
      scales=(1.0,), flip=False,
      # Images that one device takes at once, padded to multiples of so many
      # pixels; a longer side is at most so many times the shorter.
      batch_size=16, multiple=64, max_aspect=3.0,
      # Parts less sure, or on a smaller share of the image, become background.
      min_confidence=0.0, min_area=0.0,
      # Leave unreadable images out and name them, instead of stopping.
      skip_bad=False,
  )  # fmt: skip

  # Masks <wnid>/<stem>.png of local indices to compare the labels with.
  config.truth = ''
  # Labels in the report.
  config.report_samples = 24
  if size != 'full':
    shrink(config, size)
  return config


def shrink(config, size):
  """Makes the recipe small enough for two CPU cores, on the embedded data."""
  config.source.path = 'downloads/manual/pinpp_mini/imagenet'
  config.truth = 'downloads/manual/pinpp_mini/truth'
  # Beside the result on the real data, whose classes are others.
  config.output = f'pinpp_pseudo_{size}/1.0.0'
  config.shard_size = 256
  config.labelling.update(batch_size=32, multiple=32)
  if size == 'smoke':
    config.labelling.batch_size = 8
    config.report_samples = 6
