"""From `config.data` to sources and batches."""

from collections.abc import Callable, Iterator
import pathlib
from typing import Any

from absl import logging
import grain
import jax

from pinpp_jax import data, sharding
from pinpp_jax.construct import Config
from pinpp_jax.data.build import run
from pinpp_jax.data.imagenet import crops, layouts
from pinpp_jax.data.labels import LabelTable, class_only
from pinpp_jax.data.read import balance, lists, pseudo, readable, sources
from pinpp_jax.errors import UserError

# Splits of class labels alone: all validation images of the ImageNet copy, and
# those of a list.
IMAGENET_VALIDATION = 'imagenet_validation'
IMAGENET_LIST = 'imagenet_list'


def training_source(config: Config) -> sources.Source:
  """Returns all training images: joint supervision.

  First the annotated images; then, if `config.pseudo` names a set, those with
  pseudo labels; then, if `config.imagenet` names a copy, its other images with
  their class alone. Images of the data set's other splits are left out.
  """
  annotated: sources.Source = recorded(config, 'train')
  if config.balance:
    annotated = balance.balanced(annotated)
  joined: dict[str, sources.Source] = {'annotated': annotated}
  if config.pseudo:
    joined['pseudo-labelled'] = sources.Recorded(
      dataset=config.pseudo,
      data_dir=config.data_dir,
      split='train',
      labels=annotated.labels,
    )
  if config.imagenet:
    joined['with a class label alone'] = sources.ImageNet(
      path=str(_imagenet(config)),
      split='train',
      exclude=[name for name in (config.name, config.pseudo) if name],
      data_dir=config.data_dir,
      labels=annotated.labels,
    )
  logging.info(
    'Training images: %s.',
    ', '.join(f'{len(source)} {what}' for what, source in joined.items()),
  )
  source = sources.Concatenated([s for s in joined.values() if len(s)])
  return _readable(source, config.threads) if config.skip_bad else source


def _readable(source: sources.Source, threads: int) -> sources.Source:
  """Returns the examples that can be read; logs the others."""
  found, faults = readable.readable(source, threads)
  for fault in faults:
    logging.warning('Skipped: %s', fault)
  logging.info(
    'Skipped %d of %d training images that cannot be read.',
    len(faults),
    len(source),
  )
  return found


def recorded(config: Config, split: str) -> sources.Recorded:
  """Returns a split of the data set.

  The embedded data set is rendered and built on first use.

  Raises:
    UserError: If there is no data set, or `config.labels` numbers its classes
      or parts differently.
  """
  if not config.name:
    raise UserError(
      f'The split {split!r} needs a data set, but data.name is empty: set it,'
      f' or evaluate {IMAGENET_LIST} or {IMAGENET_VALIDATION}.'
    )
  if config.name == 'pinpp_mini':
    _build_mini(config)
  return sources.Recorded(
    dataset=config.name,
    data_dir=config.data_dir,
    split=split,
    split_hash=config.split_hash,
    labels=_given_labels(config),
  )


def label_table(config: Config) -> LabelTable:
  """Returns the label table, which numbers classes and parts.

  It is read from the file that `config.labels` names, else from the data set,
  else made of the classes of the ImageNet copy's validation images.
  """
  given = _given_labels(config)
  if given is not None:
    return given
  if config.name:
    return recorded(config, 'train').labels
  copy = layouts.open_copy(_imagenet(config))
  return class_only(copy.wnids('validation'))


def pseudo_hash(config: Config) -> str:
  """Returns the hash of the pseudo labels' manifest, '' if there are none."""
  if not config.pseudo:
    return ''
  return pseudo.hash_of(sources.dataset_folder(config.pseudo, config.data_dir))


def split_source(config: Config, split: str) -> sources.Split:
  """Returns a split of the data set, or ImageNet's validation images.

  Of the latter all, or those of a list, whose crops are made on first use.
  """
  if split == IMAGENET_LIST:
    return _listed(config)
  if split != IMAGENET_VALIDATION:
    return recorded(config, split)
  return sources.ImageNet(
    path=str(_imagenet(config)),
    split='validation',
    exclude=(),
    data_dir=config.data_dir,
    labels=label_table(config),
  )


def of_split(config: Config, split: str) -> Config:
  """Returns `config` with the image size and resize of a split.

  Images of a list are already cropped as `list.preprocessing` says.
  """
  if split != IMAGENET_LIST:
    return config
  side = crops.parse(config.list.preprocessing).side
  config = config.copy_and_resolve_references()
  config.update(image_size=side, eval_resize=1.0)
  return config


def about(config: Config, split: str) -> dict[str, Any]:
  """Returns how a split's images were chosen and preprocessed, for JSON."""
  seen, source = of_split(config, split), split_source(config, split)
  return source.about | {
    'images': len(source),
    'label_hash': source.labels.hash,
    'image_size': seen.image_size,
    'eval_resize': seen.eval_resize,
  }


def steps_per_epoch(config: Config, source: sources.Source) -> int:
  """Returns the number of whole batches in one pass over a source."""
  sharding.check_batch_size('data.batch_size', config.batch_size)
  steps = len(source) // config.batch_size
  if not steps:
    raise UserError(
      f'data.batch_size={config.batch_size} is more than the'
      f' {len(source)} training images; lower it.'
    )
  return steps


def training(
  config: Config,
  source: sources.Source,
  seed: int,
  put: Callable[[Any], Any] = lambda batch: batch,
) -> grain.DatasetIterator:
  """Returns an endless, checkpointable iterator of this process's batches.

  Args:
    config: `config.data`.
    source: The training images.
    seed: For the order of the images and their crops and flips.
    put: Places a batch on the devices; called ahead of time.
  """
  batches = data.training(
    source,
    batch_size=config.batch_size,
    scale=config.scale,
    flip=config.flip,
    seed=seed,
    **_common(config),
  )
  return iter(batches.put_ahead(put))


def evaluation(config: Config, source: sources.Source) -> Iterator[Any]:
  """Yields every example once; the last batch is padded and masked."""
  return iter(
    data.evaluation(
      source,
      batch_size=config.eval_batch_size,
      resize=config.eval_resize,
      **_common(config),
    )
  )


def _common(config: Config) -> dict[str, Any]:
  """Returns the options that training and evaluation batches share."""
  return dict(
    image_size=config.image_size,
    cell=config.cell,
    grid_offset=config.grid_offset,
    workers=config.workers,
    threads=config.threads,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


def _build_mini(config: Config) -> None:
  """Renders and builds the embedded data set unless it exists."""
  folder = sources.data_folder(config.data_dir)
  if not list((folder / config.name).glob('*/dataset_info.json')):
    logging.info('Rendering the embedded data set in %s.', folder)
    run.build(config.name, folder)


def _listed(config: Config) -> lists.Listed:
  """Returns the images of a list."""
  section = config.list
  if not section.name or not section.path:
    raise UserError(
      f'{IMAGENET_LIST} needs a list: set data.list.name (one of'
      f' {list(lists.PUBLISHED)}, or your own name) and data.list.path, the'
      ' file of the list.'
    )
  images = lists.read(
    _below(config, section.path), name=section.name, list_hash=section.hash
  )
  labels = label_table(config)
  # Before any image is cropped.
  lists.check(images, labels)
  found = crops.of_list(
    sources.data_folder(config.data_dir) / 'crops',
    name=images.name,
    list_hash=images.hash,
    names=images.names,
    preprocessing=section.preprocessing,
    copy=_imagenet(config) if config.imagenet else None,
    threads=config.threads,
  )
  return lists.Listed(images=images, crops=found, labels=labels)


def _given_labels(config: Config) -> LabelTable | None:
  if not config.labels:
    return None
  return lists.class_table(_below(config, config.labels))


def _imagenet(config: Config) -> pathlib.Path:
  """Returns the path of the ImageNet copy."""
  if not config.imagenet:
    raise UserError(
      'There is no ImageNet copy to read from: set data.imagenet to its folder'
      f' or tar, or remove {IMAGENET_VALIDATION} from final_splits.'
    )
  return _below(config, config.imagenet)


def _below(config: Config, path: str) -> pathlib.Path:
  """Returns a path; a relative one is below the data folder."""
  folder = sources.data_folder(config.data_dir)
  return folder / pathlib.Path(path).expanduser()
