"""What the parity tool computes with a network: outputs, losses, gradients."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax import augment
from pinpp_jax.attacks import losses as attack_losses
from pinpp_jax.attacks.pgd import PGD
from pinpp_jax.models import resnet
from pinpp_jax.models.torch import exporter, importer, names
from pinpp_jax.objectives import losses, parts
from pinpp_jax.tools.parity import golden

Arrays = dict[str, np.ndarray]

SMOOTHING = 0.1
STRIDE = 97  # of the recorded samples of large arrays
HEAD = 16  # recorded values of every tensor


class Runner:
  """A network with golden weights, and the functions compiled for it.

  The objective has the options under which it is the reference's.
  """

  def __init__(self, model: Any, rule: golden.Rule, *, double: bool):
    self.rule = rule
    self.dtype = np.float64 if double else np.float32
    self.model = model.clone(dtype='float64' if double else 'float32')
    self.entries = names.entries(self.model)
    tensors = {
      name: rule.fill_array(name, entry.shape)
      for name, entry in self.entries.items()
    }
    self.variables = jax.tree.map(
      lambda x: jnp.asarray(x, self.dtype),
      importer.variables(self.model, tensors),
    )
    self._mean = golden.MEAN.astype(self.dtype)
    self.objective = parts.Parts(
      smoothing=SMOOTHING,
      ignore_blank=False,
      reference_targets=True,
      denominator='all',
    )

  def batch(self, size: int, pixels: int) -> dict[str, Any]:
    """Returns the golden batch: what an objective wants, and hard labels."""
    rule, dtype = self.rule, self.dtype
    mask = rule.mask(size, pixels, golden.PARTS + 1)
    label = rule.labels(size, golden.CLASSES).astype(np.int32)
    soft = augment.soft_labels(
      jnp.asarray(label), golden.CLASSES, SMOOTHING, dtype
    )
    return {
      'image': self.as_input(rule.image01(size, pixels)),
      'label': np.asarray(soft, dtype),
      'hard': label,
      'parts': mask[:, ::8, ::8].astype(np.int32),
      'source': np.ones(size, np.int32),
    }

  def as_input(self, image: np.ndarray) -> np.ndarray:
    """Returns (B, H, W, 3) whose normalised form is the reference's.

    It rounds normalised images to float32, even for a float64 run.
    """
    mean, std = (x.astype(np.float32) for x in (golden.MEAN, golden.STD))
    normal = (image.transpose(0, 2, 3, 1) - mean) / std
    normal = normal.astype(np.float32).astype(self.dtype)
    return normal * golden.STD.astype(self.dtype) + self._mean

  def normalised(self, image: Any) -> np.ndarray:
    """Returns (B, 3, H, W) as the reference's networks see it."""
    normal = (np.asarray(image) - self._mean) / golden.STD.astype(self.dtype)
    return normal.transpose(0, 3, 1, 2)

  def apply(self, variables: Any, image: Any, **keywords: Any) -> Any:
    """Returns what the model does, with constants of the run's precision.

    Ours holds the mean and the standard deviation in float32; in its float64
    run the reference has them in float64. In float32 nothing happens.
    """
    if self.dtype == np.float64:
      normal = (image - self._mean) / golden.STD
      std, mean = (x.astype(self.dtype) for x in (resnet.STD, resnet.MEAN))
      image = normal * std + mean
    return self.model.apply(variables, image, **keywords)

  @functools.cached_property
  def evaluate(self):
    """(variables, image) to outputs, with running statistics."""
    return jax.jit(
      lambda variables, image: self.apply(
        variables, image, train=False, parts=True
      )
    )

  @functools.cached_property
  def differentiate(self):
    """(variables, batch) to gradients, (statistics, metrics) and outputs."""

    def loss(params, variables, batch):
      recorder: Any = _Recorder(self)
      value, aux = self.objective(
        recorder, variables | {'params': params}, batch, jax.random.key(0)
      )
      return value, (aux, recorder.outputs)

    @jax.jit
    def call(variables, batch):
      return jax.grad(loss, has_aux=True)(variables['params'], variables, batch)

    return call

  @functools.cached_property
  def climb(self):
    """(variables, x, image, label, step_size) to the next x and losses at x."""

    @jax.jit
    def call(variables, x, image, label, step_size):
      predict = self.predict(variables)
      attack = PGD(eps=golden.EPS, step_size=step_size, steps=1)
      value = attack_losses.cross_entropy(predict(x), label)
      return attack.ascend(x, predict, image, label), value

    return call

  @functools.cached_property
  def pgd2(self):
    """(variables, start, image, label) to training's adversarial images."""

    @jax.jit
    def call(variables, start, image, label):
      attack = PGD(eps=golden.EPS, step_size=golden.EPS, steps=2, best='batch')
      return attack.ascend(start, self.predict(variables), image, label)

    return call

  def predict(self, variables: Any):
    """Returns the function that attacks see."""

    def call(x):
      outputs = self.apply(variables, x, train=False)
      return outputs['logits']

    return call

  def tensors(self, variables: Any) -> Arrays:
    """Returns variables under their torch names, without counters."""
    named = exporter.tensors(self.model, jax.device_get(variables))
    return {name: named[name] for name in self.entries}


def statistics(runner: Runner, batch: dict[str, Any]) -> Arrays:
  """Returns the running statistics after a step, of layers not built too.

  The reference computes all of its bypass whatever the variant.
  """
  whole = runner
  if importer.unused(runner.model):
    model = runner.model.clone(level=3, top_down=True)
    whole = Runner(model, runner.rule, double=runner.dtype == np.float64)
  call = jax.jit(
    lambda variables, image: whole.apply(
      variables, image, train=True, parts=True, mutable=['batch_stats']
    )[1]
  )
  new = call(whole.variables, batch['image'])
  return whole.tensors(whole.variables | new)


class _Recorder:
  """A model that keeps what it put out, for a look behind an objective."""

  def __init__(self, runner: Runner):
    self._runner = runner
    self.outputs: Any = None

  def apply(self, *args: Any, **keywords: Any) -> Any:
    """Returns what the model does."""
    result = self._runner.apply(*args, **keywords)
    self.outputs = result[0]
    return result


def evaluation(runner: Runner, size: int, pixels: int) -> Arrays:
  """Returns what is recorded of a forward pass with running statistics."""
  batch = runner.batch(size, pixels)
  outputs: Any = runner.evaluate(runner.variables, batch['image'])
  hard = parts.Parts(
    smoothing=0.0,
    ignore_blank=False,
    reference_targets=True,
    denominator='all',
  )
  result = {
    'eval_logits': outputs['logits'],
    'eval_ce': losses.cross_entropy(outputs['logits'], batch['hard']).mean(),
    'eval_segloss_hard': hard.part_loss(outputs['parts'], batch)[0],
  }
  finest = outputs['parts'][0].shape[1]
  labels = batch['parts'][:, :: batch['parts'].shape[1] // finest]
  labels = labels[:, :, :: batch['parts'].shape[1] // finest]
  guess = np.argmax(outputs['parts'][0], axis=-1)
  seen = labels > 0
  right = np.sum((guess == labels) & seen)
  result['eval_pixel_acc'] = 100 * right / (seen.sum() + 1e-5)
  for i, z in enumerate(outputs['parts']):
    z = channels_first(z)
    result[f'eval_seg{i}'] = z
    result[f'eval_seg{i}_flat_stride97'] = z.reshape(-1)[::STRIDE]
    stride = finest // z.shape[2]
    result[f'pixel_seg{i}'] = labels[:, ::stride, ::stride]
  return {k: np.asarray(v) for k, v in result.items()}


def training(
  runner: Runner,
  size: int,
  pixels: int,
  grad_keys: list[str],
  stat_keys: list[str],
) -> Arrays:
  """Returns what is recorded of a training step's losses and gradients."""
  batch = runner.batch(size, pixels)
  result: dict[str, Any] = {'target_cls': batch['label']}
  for prefix, source in (('w1', None), ('w0', np.array([1, 0, 1, 1])[:size])):
    if source is not None:
      batch = batch | {'source': source.astype(np.int32)}
    inputs = {k: v for k, v in batch.items() if k != 'hard'}
    gradients, ((stats, metrics), outputs) = runner.differentiate(
      runner.variables, inputs
    )
    finest = outputs['parts'][0].shape[1]
    levels = [metrics[f'part_loss_{z.shape[1]}'] for z in outputs['parts']]
    rows = runner.tensors({'params': gradients, 'batch_stats': stats})
    norms = {k: np.linalg.norm(v.astype(np.float64)) for k, v in rows.items()}
    result |= {
      f'{prefix}_loss_cls': metrics['class_loss'],
      f'{prefix}_loss_seg': metrics['part_loss'],
      f'{prefix}_loss_seg_levels': np.stack(levels),
      f'{prefix}_loss_total': metrics['loss'],
      f'{prefix}_grad_norm': np.array(
        [norms.get(k, np.nan) for k in grad_keys]
      ),
      f'{prefix}_grad_first16': first(rows, grad_keys),
    }
    if source is None:
      result['train_logits'] = outputs['logits']
      if not set(stat_keys) <= set(rows):
        rows = rows | statistics(runner, batch)
      result['bn_after_first16'] = first(rows, stat_keys)
      for i, z in enumerate(outputs['parts']):
        z = channels_first(z)
        result[f'train_seg{i}_flat_stride97'] = z.reshape(-1)[::STRIDE]
        target = dense_target(batch['parts'], z.shape[2], finest)
        result[f'target_seg{i}_flat_stride97'] = target.reshape(-1)[::STRIDE]
        result[f'target_seg{i}_sum'] = target.sum()
  return {k: np.asarray(v) for k, v in result.items()}


def dense_target(grid: np.ndarray, size: int, finest: int) -> np.ndarray:
  """Returns the target (B, P + 1, h, w) that the sparse loss stands for."""
  labels = np.asarray(parts.children(jnp.asarray(grid), size, finest))
  channels = golden.PARTS + 1
  onehot = np.eye(channels)[labels].mean(axis=3)
  return channels_first((1 - SMOOTHING) * onehot + SMOOTHING / channels)


def first(rows: Arrays, keys: list[str]) -> np.ndarray:
  """Returns the first values of each tensor, zero padded, NaN if absent."""
  table = np.zeros((len(keys), HEAD))
  for i, key in enumerate(keys):
    if key in rows:
      values = rows[key].reshape(-1)[:HEAD]
      table[i, : values.size] = values
    else:
      table[i] = np.nan
  return table


def channels_first(x: Any) -> np.ndarray:
  """Returns (B, H, W, C) as (B, C, H, W)."""
  return np.asarray(x).transpose(0, 3, 1, 2)
