"""A model's predictions for a batch: classes, and parts on the label grid."""

from collections.abc import Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp

from pinpp_jax.errors import UserError
from pinpp_jax.evals import examples as examples_lib
from pinpp_jax.evals import grids

FIELDS = ('image', 'label', 'id', 'mask', 'parts', 'source', 'candidates')


@functools.partial(
  jax.jit, static_argnames=('model', 'attack', 'channels', 'known')
)
def predict(
  variables: Any,
  batch: Any,
  key: jax.Array,
  *,
  model: Any,
  attack: Any,
  channels: int,
  known: bool,
) -> dict[str, jax.Array]:
  """Returns int32 grids `truth`, `open` and, if asked for, `known`.

  Grids have the shape of batch['parts']: the finest part logits are
  interpolated to it before the largest is taken, among all channels (open) or
  among the image's candidates (known). Beside them: `class` (argmax of the
  class logits, if the model has any) and the batch's `label`, `id`, `mask` and
  `source`, so that all can be fetched together. With `channels=0` there is no
  `open` and no `known`.

  Args:
    variables: Weights and statistics.
    batch: `FIELDS` of an evaluation batch, on the devices, and `class_parts`
      for an attack that reads parts.
    key: Key of the evaluation.
    model: Linen module.
    attack: Attack or None.
    channels: Number of channels that 'parts' must have, 0 to leave it out.
    known: Whether to predict with known class as well.

  Raises:
    UserError: If the model has no class logits to attack, or not so many part
      channels.
  """
  if attack and 'logits' not in outputs(model, variables, batch['image']):
    raise UserError(
      'An attack needs a model with class logits; this one has none. Remove the'
      " attack from the evaluator's section."
    )
  image = examples_lib.image(variables, batch, key, model=model, attack=attack)
  output = model.apply(variables, image, train=False, parts=True)
  found = {name: batch[name] for name in ('label', 'id', 'mask', 'source')}
  found['truth'] = batch['parts']
  if 'logits' in output:
    found['class'] = output['logits'].argmax(-1)
  if channels:
    logits, size = finest(output, channels), batch['parts'].shape[1:]
    found['open'] = grids.largest(logits, size)
    if known:
      found['known'] = _largest_among(logits, batch['candidates'], size)
  return found


def outputs(model: Any, variables: Any, image: Any) -> Any:
  """Returns the shapes of a model's whole output for images (B, H, W, 3)."""
  image = jax.ShapeDtypeStruct(image.shape, jnp.float32)
  apply = functools.partial(model.apply, train=False, parts=True)
  return jax.eval_shape(apply, variables, image)


def _largest_among(
  logits: jax.Array, ids: jax.Array, size: tuple[int, ...]
) -> jax.Array:
  """Returns (B, *size) int32: which of ids (B, m) has the largest logit."""
  # Where a class has fewer parts than m, column 0 is repeated; of equals the
  # first is taken, so the copies change nothing.
  among = jax.vmap(lambda x, i: x[..., i])(logits, ids)
  return jax.vmap(lambda i, k: i[k])(ids, grids.largest(among, size))


def finest(output: Mapping[str, Any], channels: int) -> jax.Array:
  """Returns the finest part logits (B, h, w, channels).

  Raises:
    UserError: If the output has no parts, or another number of channels.
  """
  if not output.get('parts'):
    raise UserError(
      'Scoring or attacking parts needs a model with a parts output; this one'
      ' has none.'
    )
  logits = output['parts'][0]
  if logits.shape[-1] != channels:
    raise UserError(
      f'The model has {logits.shape[-1]} part channels and the data'
      f' {channels} with background: evaluate it on the data set that it was'
      ' trained on.'
    )
  return logits
