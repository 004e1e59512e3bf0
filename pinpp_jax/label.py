"""Pseudo part labels: a trained segmenter over images of known class."""

from collections.abc import Callable
import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import pathlib
import time
from typing import Any

from absl import logging
import jax
from jax.experimental import multihost_utils
import numpy as np

from pinpp_jax import checkpoint, inputs, recipe, sharding
from pinpp_jax import state as state_lib
from pinpp_jax.construct import Config, construct
from pinpp_jax.data.labels import LabelTable, write_json
from pinpp_jax.data.read import pseudo, sources
from pinpp_jax.data.read.pseudo import Draft
from pinpp_jax.data.read.sources import Recorded
from pinpp_jax.errors import UserError
from pinpp_jax.labelling import blocks, page, quality
from pinpp_jax.labelling.labeller import Labeller, Options
from pinpp_jax.labelling.predict import Predictor
from pinpp_jax.runs import faults, rundir

SOURCES = {
  'imagenet': sources.ImageNet,
  'imagenet2012': sources.TfdsImageNet,
}
SCORES = 'quality.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmenter:
  """A network that draws parts.

  Attributes:
    model: Linen module that takes `candidates`.
    variables: numpy arrays.
    about: Its entry in the manifest.
  """

  model: Any
  variables: Any
  about: dict[str, Any]


def run(config: Config, workdir: pathlib.Path) -> bool:
  """Writes a data set of pseudo labels and measures how good they are.

  Finished shards are never made again: the same command resumes where an
  earlier one stopped. Every process labels its share of the shards on its own
  devices; process 0 completes the set and compares it with the truth.

  Returns:
    False if it was asked to stop before the end.
  """
  with rundir.locked(workdir):
    rundir.log_to(workdir)
    annotated = inputs.Inputs(config.data).recorded('test')
    truth = true_masks(config)
    segmenter = load(config, annotated.labels)
    options = Options(image_size=config.data.image_size, **config.labelling)
    images = blocks.choose(
      image_source(config, annotated.labels),
      shard_size=config.shard_size,
      limit=config.limit,
    )
    draft = Draft(
      output=output(config),
      labels=annotated.labels,
      shards=images.blocks,
      images=options.images,
    )
    plan = _plan(config, segmenter, images, annotated)
    check(draft, plan)
    rundir.claim(workdir, config, annotated)
    labeller = Labeller(
      Predictor(segmenter.model, segmenter.variables, options.batch_size),
      annotated.labels,
      options,
      threads=config.data.threads,
    )
    with faults.Preemption() as stop, _held(draft, plan, stop):
      if not draft.finished and not make(draft, images, labeller, stop):
        return False
    if jax.process_index() == 0:
      draft.tidy()
      finish(config, workdir, annotated, labeller, draft, truth)
    return _wait(lambda: (workdir / SCORES).is_file(), lambda: False)


def make(
  draft: Draft,
  images: blocks.Images,
  labeller: Labeller,
  stop: Callable[[], bool],
) -> bool:
  """Writes and completes the set; returns False if it was asked to stop."""
  first, step = jax.process_index(), jax.process_count()
  logging.info(
    '%d images in %d shards, to %s.',
    len(images.chosen),
    images.blocks,
    draft.output,
  )
  mine = range(first, images.blocks, step)
  if not blocks.label(images, draft, labeller, mine, stop):
    return False
  if step > 1:
    # Wait on files first: a collective would time out while a shard is made.
    # The collective covers notes of an earlier run that were about to go.
    everything = lambda: all(map(draft.note, range(images.blocks)))
    if not _wait(everything, stop):
      return False
    multihost_utils.sync_global_devices('labelled')
  if first == 0:
    labelled, left_out = blocks.account(images, draft)
    draft.publish(images.skipped)
    logging.info(
      'Finished %s: %d images were given, %d labelled, %d left out.',
      draft.output,
      len(images.chosen),
      labelled,
      left_out,
    )
  return _wait(lambda: draft.finished, stop)


def finish(
  config: Config,
  workdir: pathlib.Path,
  annotated: Recorded,
  labeller: Labeller,
  draft: Draft,
  truth: pathlib.Path | None,
) -> None:
  """Compares with the truth; writes `quality.json` and `report.html`."""
  if (workdir / SCORES).is_file():
    logging.info(
      '%s is finished; its report is %s.', draft.output, workdir / page.FILE
    )
    return
  labels = annotated.labels
  made = Recorded(
    dataset=str(draft.output),
    data_dir=config.data.data_dir,
    split='train',
    labels=labels,
  )
  found = {
    'test': list(
      quality.annotated(
        annotated, labeller, config.shard_size, limit=config.limit
      )
    )
  }
  read = {'test': annotated, 'truth': made}
  if truth:
    found['truth'] = list(quality.written(made, truth))
  scores = {name: quality.scores(some, labels) for name, some in found.items()}
  page.write(
    workdir,
    scores=scores,
    found=found,
    sources=read,
    made=made,
    number=config.report_samples,
  )
  write_json(workdir / SCORES, scores)
  for name, some in scores.items():
    logging.info(
      '%s: part mIoU %.4f over %d images.',
      name,
      some['part_miou_known'],
      some['images'],
    )
  logging.info('Report: %s', workdir / page.FILE)


def load(config: Config, labels: LabelTable) -> Segmenter:
  """Returns the segmenter of `config.segmenter`, or an untrained one if ''.

  Raises:
    UserError: If the folder is not a run, belongs to another label table, or
      holds no segmenter.
  """
  folder = pathlib.Path(config.segmenter).expanduser()
  trained = _trained(folder) if config.segmenter else config
  if config.segmenter:
    rundir.same_labels(folder, labels)
  model = recipe.model(trained, labels)
  if 'candidates' not in inspect.signature(type(model).__call__).parameters:
    raise UserError(
      f'segmenter={config.segmenter!r} is a run of the model'
      f' {trained.model.name!r}, which is no segmenter; give the folder of a'
      ' run of configs/segmenter.py.'
    )
  if config.segmenter:
    variables = checkpoint.load_best(
      folder.resolve(), sharding.replicated(sharding.mesh())
    )
    with checkpoint.Best(folder.resolve()) as best:
      step = best.step
  else:
    logging.warning('The segmenter is untrained: its labels mean nothing.')
    create = functools.partial(
      state_lib.initial_variables, model, config.data.image_size
    )
    variables, step = jax.jit(create)(state_lib.key(config.seed)), 0
  # Every process holds all variables and works on its own.
  variables = jax.tree.map(
    lambda x: np.asarray(x.addressable_data(0)), variables
  )
  recipe_of = json.loads(trained.to_json_best_effort())
  if config.segmenter:
    shown = folder.name if folder.is_absolute() else config.segmenter
  else:
    shown = ''
    recipe_of = {name: recipe_of[name] for name in ('model', 'seed')}
  about = {
    'run': shown,
    'step': step,
    'variables': _hash(variables),
    'config': recipe_of,
  }
  return Segmenter(model=model, variables=variables, about=about)


def _trained(folder: pathlib.Path) -> Config:
  """Returns the recipe of a segmenter's run."""
  if not (folder / 'config.json').is_file():
    size = '' if folder.name.endswith('full') else ':mini'
    raise UserError(
      f'segmenter={folder} is not the folder of a run. Train one: python -m'
      f' pinpp_jax.main --config=configs/segmenter.py{size}'
    )
  return rundir.recipe_of(folder)


def _hash(variables: Any) -> str:
  """Returns the SHA-256 of names, types, shapes and bytes of all arrays."""
  digest = hashlib.sha256()
  for path, x in jax.tree_util.tree_leaves_with_path(variables):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    digest.update(f'{name} {x.dtype} {x.shape}\n'.encode())
    digest.update(np.ascontiguousarray(x).tobytes())
  return digest.hexdigest()


def image_source(config: Config, labels: LabelTable) -> sources.Source:
  """Returns the images of `config.source` that the data set does not hold."""
  section = dict(config.source)
  if not config.labelling.images and section['name'] != 'imagenet':
    raise UserError(
      'labelling.images=False stores part masks alone, whose images are read'
      " from a folder or a tar; source.name must be 'imagenet'."
    )
  if section.get('path'):
    section['path'] = str(_below_data(config, section['path']))
  return construct(
    SOURCES,
    section,
    exclude=(config.data.name,),
    data_dir=config.data.data_dir,
    labels=labels,
  )


def output(config: Config) -> pathlib.Path:
  """Returns the folder of the set.

  Raises:
    UserError: If a limited set would take the place of the full one.
  """
  if config.limit and not config.output:
    raise UserError(
      f'limit={config.limit} labels only some of the images; write them to a'
      ' folder of their own with --config.output=FOLDER.'
    )
  default = f'{pseudo.NAME}/{pseudo.RELEASE}'
  return _below_data(config, config.output or default)


def true_masks(config: Config) -> pathlib.Path | None:
  """Returns the folder of true masks, None if `config.truth` is ''.

  Raises:
    UserError: If it does not exist.
  """
  if not config.truth:
    return None
  folder = _below_data(config, config.truth)
  if not folder.is_dir():
    raise UserError(
      f'truth={folder} is not a folder of masks <wnid>/<stem>.png; give one, or'
      " leave the comparison out with --config.truth=''."
    )
  return folder


def _below_data(config: Config, path: str) -> pathlib.Path:
  folder = sources.data_folder(config.data.data_dir)
  return folder.resolve() / pathlib.Path(path).expanduser()


def _plan(
  config: Config,
  segmenter: Segmenter,
  images: blocks.Images,
  annotated: Recorded,
) -> dict[str, Any]:
  """Returns everything that determines the set, as plain data."""
  plan = {
    'segmenter': segmenter.about,
    'labelling': {
      'image_size': config.data.image_size,
      'shard_size': config.shard_size,
      **config.labelling,
    },
    'source': {
      **config.source,
      'limit': config.limit,
      'images': len(images.chosen),
      'hash': images.hash,
    },
    'data_set': {
      'name': config.data.name,
      'split_hash': annotated.split_hash,
      'label_hash': annotated.labels.hash,
    },
  }
  return json.loads(json.dumps(plan))


def check(draft: Draft, plan: dict[str, Any]) -> None:
  """Checks that the output folder is new, or holds this very set.

  Raises:
    UserError: If not, naming the fields that differ.
  """
  if draft.output.exists() and not draft.finished:
    raise UserError(
      f'{draft.output} exists and is not a set of pseudo labels; give another'
      ' folder with --config.output=FOLDER.'
    )
  before = draft.plan
  if before is None:
    return
  changed = rundir.differences(_deciding(before), _deciding(plan))
  if changed:
    raise UserError(
      f'{draft.output} was started with other settings; these differ:'
      f' {"; ".join(changed)}. Restore them, or give another folder with'
      ' --config.output=FOLDER.'
    )


def _deciding(plan: dict[str, Any]) -> dict[str, Any]:
  """Returns a plan without how the segmenter was trained, which may differ."""
  segmenter = dict(plan['segmenter'])
  segmenter['model'] = segmenter.pop('config')['model']
  # Of a set that was begun before there was a choice.
  labelling = {'images': True} | plan['labelling']
  return plan | {'segmenter': segmenter, 'labelling': labelling}


@contextlib.contextmanager
def _held(draft: Draft, plan: dict[str, Any], stop: Callable[[], bool]):
  """Starts or resumes the set, and locks it against other runs.

  Raises:
    UserError: If another run holds the lock.
  """
  with contextlib.ExitStack() as stack:
    if jax.process_index() == 0 and not draft.finished:
      stack.enter_context(
        rundir.locked(draft.folder / pseudo.PROGRESS, '--config.output')
      )
      if not draft.plan:
        draft.begin(plan)
    _wait(lambda: draft.plan is not None, stop)
    yield


def _wait(condition: Callable[[], bool], stop: Callable[[], bool]) -> bool:
  """Waits for a condition that processes sharing our disk bring about.

  Returns:
    False if it was asked to stop before.
  """
  while not condition():
    if stop():
      return False
    time.sleep(0.2)
  return True
