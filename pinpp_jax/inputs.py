"""The data that `config.data` names, each thing opened once in a run."""

from collections.abc import Callable, Iterator
import functools
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


class Inputs:
  """Label table, sources, splits and batches of a run.

  Nothing is opened before it is asked for, and nothing is opened twice.

  Args:
    config: `config.data`.
  """

  def __init__(self, config: Config):
    self.config = config
    self._recorded: dict[str, sources.Recorded] = {}
    self._of_imagenet: dict[str, sources.Split] = {}

  @functools.cached_property
  def labels(self) -> LabelTable:
    """The label table, which numbers classes and parts.

    It is read from the file that `config.labels` names, else from the data set,
    else made of the classes of the ImageNet copy's validation images.
    """
    if self._given_labels is not None:
      return self._given_labels
    if self.config.name:
      return self.recorded('train').labels
    return class_only(self._copy.wnids('validation'))

  def recorded(self, split: str) -> sources.Recorded:
    """Returns a split of the data set.

    The embedded data set is rendered and built on first use.

    Raises:
      UserError: If there is no data set, or `config.labels` numbers its
        classes or parts differently.
    """
    if split not in self._recorded:
      self._recorded[split] = self._open_recorded(split)
    return self._recorded[split]

  def split(self, name: str) -> sources.Split:
    """Returns a split of the data set, or ImageNet's validation images.

    Of the latter all, or those of a list, whose crops are made on first use.
    """
    openers = {
      IMAGENET_LIST: self._open_list,
      IMAGENET_VALIDATION: self._open_validation,
    }
    if name not in openers:
      return self.recorded(name)
    if name not in self._of_imagenet:
      self._of_imagenet[name] = openers[name]()
    return self._of_imagenet[name]

  @functools.cached_property
  def training(self) -> sources.Source:
    """All training images: joint supervision.

    First the annotated images; then, if `config.pseudo` names a set, those with
    pseudo labels; then, if `config.imagenet` names a copy, its other images
    with their class alone. Images of the data set's other splits are left out.
    """
    config = self.config
    annotated: sources.Source = self.recorded('train')
    if config.balance:
      annotated = balance.balanced(annotated)
    joined: dict[str, sources.Source] = {'annotated': annotated}
    if config.pseudo:
      joined['pseudo-labelled'] = sources.Recorded(
        dataset=config.pseudo,
        data_dir=config.data_dir,
        images=str(self._imagenet) if config.imagenet else '',
        split='train',
        labels=annotated.labels,
      )
    if config.imagenet:
      joined['with a class label alone'] = sources.ImageNet(
        path=str(self._imagenet),
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

  @functools.cached_property
  def pseudo_hash(self) -> str:
    """Hash of the pseudo labels' manifest, '' if there are none."""
    if not self.config.pseudo:
      return ''
    return pseudo.hash_of(
      sources.dataset_folder(self.config.pseudo, self.config.data_dir)
    )

  @property
  def steps_per_epoch(self) -> int:
    """Whole batches in one pass over the training images."""
    return steps_per_epoch(self.config, self.training)

  def protocol(self, split: str) -> dict[str, Any]:
    """Returns how a split's images were chosen and preprocessed, for JSON."""
    source, view = self.split(split), self._view(split)
    return (
      source.about
      | view
      | {
        'images': len(source),
        'label_hash': source.labels.hash,
      }
    )

  def training_batches(
    self, seed: int, put: Callable[[Any], Any] = lambda batch: batch
  ) -> grain.DatasetIterator:
    """Returns an endless, checkpointable iterator of this process's batches.

    Args:
      seed: For the order of the images and their crops and flips.
      put: Places a batch on the devices; called ahead of time.
    """
    return training_batches(self.config, self.training, seed, put)

  def batches(
    self, split: str, chosen: sources.Source | None = None
  ) -> Iterator[Any]:
    """Yields every example once; the last batch is padded and masked.

    Args:
      split: The split's name.
      chosen: Some examples of it instead of all.
    """
    source = self.split(split) if chosen is None else chosen
    return evaluation_batches(self.config, source, **self._view(split))

  def _view(self, split: str) -> dict[str, Any]:
    """Returns the image size and resize of a split.

    Images of a list are already cropped as `list.preprocessing` says.
    """
    if split != IMAGENET_LIST:
      config = self.config
      return {
        'image_size': config.image_size,
        'eval_resize': config.eval_resize,
      }
    side = crops.parse(self.config.list.preprocessing).side
    return {'image_size': side, 'eval_resize': 1.0}

  def _open_recorded(self, split: str) -> sources.Recorded:
    config = self.config
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
      labels=self._given_labels,
    )

  def _open_validation(self) -> sources.ImageNet:
    return sources.ImageNet(
      path=str(self._imagenet),
      split='validation',
      exclude=(),
      data_dir=self.config.data_dir,
      labels=self.labels,
    )

  def _open_list(self) -> lists.Listed:
    config, section = self.config, self.config.list
    if not section.name or not section.path:
      raise UserError(
        f'{IMAGENET_LIST} needs a list: set data.list.name (one of'
        f' {list(lists.PUBLISHED)}, or your own name) and data.list.path, the'
        ' file of the list.'
      )
    images = lists.read(
      self._below(section.path), name=section.name, list_hash=section.hash
    )
    # Before any image is cropped.
    lists.check(images, self.labels)
    found = crops.of_list(
      sources.data_folder(config.data_dir) / 'crops',
      name=images.name,
      list_hash=images.hash,
      names=images.names,
      preprocessing=section.preprocessing,
      copy=self._imagenet if config.imagenet else None,
      threads=config.threads,
    )
    return lists.Listed(images=images, crops=found, labels=self.labels)

  @functools.cached_property
  def _given_labels(self) -> LabelTable | None:
    if not self.config.labels:
      return None
    return lists.class_table(self._below(self.config.labels))

  @functools.cached_property
  def _copy(self) -> layouts.ImageNetCopy:
    return layouts.open_copy(self._imagenet)

  @property
  def _imagenet(self) -> pathlib.Path:
    """Path of the ImageNet copy."""
    if not self.config.imagenet:
      raise UserError(
        'There is no ImageNet copy to read from: set data.imagenet to its'
        f' folder or tar, or remove {IMAGENET_VALIDATION} from final_splits.'
      )
    return self._below(self.config.imagenet)

  def _below(self, path: str) -> pathlib.Path:
    """Returns a path; a relative one is below the data folder."""
    folder = sources.data_folder(self.config.data_dir)
    return folder / pathlib.Path(path).expanduser()


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


def training_batches(
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
    image_size=config.image_size,
    batch_size=config.batch_size,
    scale=config.scale,
    flip=config.flip,
    seed=seed,
    **_common(config),
  )
  return iter(batches.put_ahead(put))


def evaluation_batches(
  config: Config,
  source: sources.Source,
  *,
  image_size: int,
  eval_resize: float,
) -> Iterator[Any]:
  """Yields every example of a source once; the last batch is padded.

  Args:
    config: `config.data`.
    source: The images.
    image_size: Pixels a side of the view.
    eval_resize: See `data.evaluation`.
  """
  return iter(
    data.evaluation(
      source,
      image_size=image_size,
      batch_size=config.eval_batch_size,
      resize=eval_resize,
      **_common(config),
    )
  )


def _common(config: Config) -> dict[str, Any]:
  """Returns the options that training and evaluation batches share."""
  return dict(
    cell=config.cell,
    grid_offset=config.grid_offset,
    workers=config.workers,
    threads=config.threads,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )


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


def _build_mini(config: Config) -> None:
  """Renders and builds the embedded data set unless it exists."""
  folder = sources.data_folder(config.data_dir)
  if not list((folder / config.name).glob('*/dataset_info.json')):
    logging.info('Rendering the embedded data set in %s.', folder)
    run.build(config.name, folder)
