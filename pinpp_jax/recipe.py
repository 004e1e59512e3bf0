"""From a config to the objects of a training step, and its first state."""

import functools
import pathlib
from typing import Any

from absl import logging
import jax
import optax

from pinpp_jax import (
  attacks,
  augment,
  checkpoint,
  models,
  objectives,
  optim,
  sharding,
)
from pinpp_jax import state as state_lib
from pinpp_jax.construct import Config, construct
from pinpp_jax.data.labels import LabelTable
from pinpp_jax.errors import UserError
from pinpp_jax.models import Segmenter
from pinpp_jax.models.resnet import Network
from pinpp_jax.models.torch import files, importer
from pinpp_jax.runs import rundir
from pinpp_jax.step import Recipe

# As `model.name`: take the network of the run in `init.path`.
FROM_RUN = 'from_run'


def of_run(config: Config) -> Config:
  """Resolves `config.model.name='from_run'`: the network of `init.path`'s run.

  Other fields of `config.model` replace the run's; classes and parts are
  numbered as in the run. Any other name returns the config unchanged.

  Raises:
    UserError: If `config.init.path` is not the folder of a run.
  """
  if config.model.name != FROM_RUN:
    return config
  folder = pathlib.Path(config.init.path).expanduser().resolve()
  if not config.init.path or not folder.is_dir():
    raise UserError(
      f'model.name={FROM_RUN} takes the network of the run in init.path, but'
      f' init.path={config.init.path!r} is not the folder of a run. Set'
      ' --config.init.path to one; for a file of weights, set model.name and'
      ' its fields.'
    )
  trained = rundir.recipe_of(folder)
  own = {k: v for k, v in config.model.items() if k != 'name'}
  config = config.copy_and_resolve_references()
  with config.unlocked():
    config.model = {**trained.model, **own}
    # It determines the part channels.
    config.objective = trained.objective
  config.data.labels = str(folder / 'labels.json')
  return config


def model(config: Config, labels: LabelTable) -> Network | Segmenter:
  """Returns the network with as many classes and parts as the data has.

  A `num_parts` in the section replaces the data's, for a file of weights that
  is evaluated on images without parts.

  Raises:
    UserError: If it is a segmenter and the label table has no parts.
  """
  if config.model.name == 'segmenter' and not labels.num_parts:
    raise UserError(
      'The label table has no parts to segment: set data.name to a data set'
      ' with part masks.'
    )
  channels = labels.num_parts
  if config.objective.name == 'parts' and config.objective.targets == 'objects':
    channels = labels.num_classes
  counted = {'num_classes': labels.num_classes, 'num_parts': channels}
  return construct(models.MODELS, {**counted, **config.model})


def make(
  config: Config,
  model: Network | Segmenter,
  labels: LabelTable,
  steps_per_epoch: int,
) -> Recipe:
  """Returns the fixed objects of a training step."""
  attack = None
  if config.attack.name != 'none':
    attack = construct(attacks.ATTACKS, config.attack)
  tx, schedule = optim.make(
    config.optim, steps_per_epoch, config.data.batch_size
  )
  return Recipe(
    model=model,
    objective=construct(objectives.OBJECTIVES, config.objective),
    augment=augment.Augment(
      num_classes=labels.num_classes,
      grid_offset=config.data.grid_offset,
      **config.augment,
    ),
    attack=attack,
    attack_ramp=functools.partial(
      optim.attack_ramp,
      steps_per_epoch=steps_per_epoch,
      warmup_epochs=config.attack_warmup.epochs,
      by_epoch=config.attack_warmup.by_epoch,
    ),
    tx=tx,
    schedule=schedule,
    frozen=tuple(config.optim.frozen),
    ema_decay=config.ema_decay,
    mesh=sharding.mesh(config.fsdp) if config.fsdp > 1 else None,
  )


def initial_state(
  config: Config,
  model: Network | Segmenter,
  tx: optax.GradientTransformation,
  labels: LabelTable,
  mesh: jax.sharding.Mesh,
) -> state_lib.TrainState:
  """Returns the state before the first step, split over the mesh or whole."""
  variables = initial_variables(config, model, labels, mesh)
  create = functools.partial(state_lib.create, tx=tx)
  places = sharding.split(jax.eval_shape(create, variables), mesh)
  return jax.jit(create, out_shardings=places)(variables)


def initial_variables(
  config: Config,
  model: Network | Segmenter,
  labels: LabelTable,
  mesh: jax.sharding.Mesh,
) -> Any:
  """Returns the variables that `config.init` names, or fresh ones.

  `init.path` is a run's folder (its best weights; the label tables must
  agree) or a torch file, of whose state dicts `init.key` chooses one. With
  `init.part` 'backbone' only the backbone is taken from it.

  Raises:
    UserError: If the path does not exist, or its weights do not fit.
  """
  replicated = sharding.replicated(mesh)
  fresh = jax.jit(
    functools.partial(
      state_lib.initial_variables, model, config.data.image_size
    ),
    out_shardings=replicated,
  )(state_lib.key(config.seed))
  if config.init.part not in ('all', 'backbone'):
    raise UserError(
      f"init.part={config.init.part!r} is not 'all' or 'backbone'."
    )
  if not config.init.path:
    return fresh
  path = pathlib.Path(config.init.path).expanduser().resolve()
  logging.info('Starting from %s (%s).', path, config.init.part)
  if path.is_dir():
    loaded = _from_run(path, config, fresh, labels)
  elif path.is_file():
    loaded = _from_torch(path, config, model, fresh)
  else:
    raise UserError(
      f'init.path={path} does not exist: give the folder of a finished run,'
      ' a .safetensors or a .pth file'
      + (
        '; python -m pinpp_jax.main --config=configs/mpm_init.py makes'
        ' this one.'
        if path.name.startswith('mpm_init')
        else ", or '' to start from scratch."
      )
    )
  return jax.device_put(loaded, replicated)


def _from_run(
  path: pathlib.Path,
  config: Config,
  fresh: Any,
  labels: LabelTable,
) -> Any:
  """Returns `fresh` with another run's best variables, all or the backbone."""
  loaded = checkpoint.load_best(path, jax.tree.leaves(fresh)[0].sharding)
  if config.init.part == 'backbone':
    if 'backbone' not in loaded['params']:
      raise UserError(f'{path}: the network of this run has no backbone.')
    # Without batch normalisation there are no statistics to take.
    loaded = {
      kind: fresh[kind]
      | {k: v for k, v in loaded.get(kind, {}).items() if k == 'backbone'}
      for kind in fresh
    }
  else:
    rundir.same_labels(path, labels)
  _check_same_shapes(path, loaded, fresh)
  return loaded


def _from_torch(
  path: pathlib.Path,
  config: Config,
  model: Network | Segmenter,
  fresh: Any,
) -> Any:
  """Returns `fresh` with a torch state dict, all or the backbone."""
  tensors = files.read_file(path, config.init.key)
  if isinstance(model, Segmenter):
    if config.init.part == 'all':
      raise UserError(
        f'A segmenter takes only its encoder from {path}: set'
        ' init.part=backbone.'
      )
    inner = importer.encoder_variables(model.backbone(), tensors)
    backbone = {kind: {'backbone': inner.get(kind, {})} for kind in fresh}
  elif config.init.part == 'all':
    return importer.variables(model, tensors)
  else:
    backbone = importer.backbone_variables(model, tensors)
  return {kind: fresh[kind] | backbone[kind] for kind in fresh}


def _check_same_shapes(path: pathlib.Path, loaded: Any, fresh: Any) -> None:
  """Raises `UserError` naming the first arrays that differ."""
  have, want = (
    {
      jax.tree_util.keystr(name, simple=True, separator='/'): x.shape
      for name, x in jax.tree_util.tree_leaves_with_path(tree)
    }
    for tree in (loaded, fresh)
  )
  wrong = sorted(
    name
    for name in have.keys() | want.keys()
    if have.get(name) != want.get(name)
  )
  if wrong:
    lines = (
      f'{name}: {have.get(name, "absent")} in the run,'
      f' {want.get(name, "absent")} in the model'
      for name in wrong[:3]
    )
    raise UserError(
      f'{path} does not fit this model in {len(wrong)} arrays, such as '
      + '; '.join(lines)
      + ". Give a run of the same model, or init.part='backbone'."
    )
