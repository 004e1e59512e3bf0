"""From `config.data` to sources and batches."""

from collections.abc import Iterator
import pathlib
from typing import Any

from absl import logging
import grain
import jax

from pinpp_jax import data, sharding
from pinpp_jax.construct import Config
from pinpp_jax.data import balance, pseudo, sources
from pinpp_jax.errors import UserError
from pinpp_jax.tools import build

# The validation images of the ImageNet copy: classes without parts.
IMAGENET_VALIDATION = 'imagenet_validation'


def training_source(config: Config) -> sources.Source:
  """Returns all training images: joint supervision.

  First those annotated by people; then, where `config.pseudo` names a set,
  those with pseudo labels; then, where `config.imagenet` names a copy, its
  other images, with their class alone. No image of the data set's other splits
  is among them.
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
    joined['with their class alone'] = sources.ImageNet(
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
  return sources.Concatenated([s for s in joined.values() if len(s)])


def recorded(config: Config, split: str) -> sources.Recorded:
  """Returns a split of the data set.

  The embedded data set is rendered and built on first use.
  """
  if config.name == 'pinpp_mini':
    _build_mini(config)
  return sources.Recorded(
    dataset=config.name,
    data_dir=config.data_dir,
    split=split,
    split_hash=config.split_hash,
  )


def pseudo_hash(config: Config) -> str:
  """Returns the hash of the pseudo labels' manifest, '' if there are none."""
  if not config.pseudo:
    return ''
  return pseudo.hash_of(sources.dataset_folder(config.pseudo, config.data_dir))


def split_source(config: Config, split: str) -> sources.Source:
  """Returns a split, or the ImageNet copy's validation images."""
  if split != IMAGENET_VALIDATION:
    return recorded(config, split)
  if not config.imagenet:
    raise UserError(
      f'{IMAGENET_VALIDATION} needs an ImageNet copy; set data.imagenet or'
      ' take it out of final_splits.'
    )
  return sources.ImageNet(
    path=str(_imagenet(config)),
    split='validation',
    exclude=(),
    data_dir=config.data_dir,
    labels=recorded(config, 'train').labels,
  )


def steps_per_epoch(config: Config, source: sources.Source) -> int:
  """Returns the whole batches in one pass over a source."""
  sharding.check_batch_size('data.batch_size', config.batch_size)
  steps = len(source) // config.batch_size
  if not steps:
    raise UserError(
      f'data.batch_size={config.batch_size} is more than the'
      f' {len(source)} training images; lower it.'
    )
  return steps


def training(
  config: Config, source: sources.Source, seed: int
) -> grain.DatasetIterator:
  """Returns an endless, checkpointable iterator of this process's batches."""
  return iter(
    data.training(
      source,
      batch_size=config.batch_size,
      scale=config.scale,
      flip=config.flip,
      seed=seed,
      **_common(config),
    )
  )


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
  """Returns what batches of training and of evaluation have in common."""
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
  """Renders and builds the embedded data set unless it is there."""
  folder = sources.data_folder(config.data_dir)
  if not list((folder / config.name).glob('*/dataset_info.json')):
    logging.info('Rendering the embedded data set in %s.', folder)
    build.build(config.name, folder)


def _imagenet(config: Config) -> pathlib.Path:
  """Returns the path of the copy; relative ones are below the data folder."""
  folder = sources.data_folder(config.data_dir)
  return folder / pathlib.Path(config.imagenet).expanduser()
