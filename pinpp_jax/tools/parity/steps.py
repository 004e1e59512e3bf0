"""What the parity tool computes over time: attacks and optimiser steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pinpp_jax import optim
from pinpp_jax.attacks import losses
from pinpp_jax.tools.parity import golden
from pinpp_jax.tools.parity.model import STRIDE, Arrays, Runner, first

# 100 updates an epoch, at the batch size that needs no scaling.
SCHEDULE = (100, optim.REFERENCE_BATCH)
SECTIONS = {
  'at': dict(name='sgd', epochs=80, min_learning_rate=1e-2),
  'ori': dict(name='sgd', epochs=100, min_learning_rate=1e-3),
  'init': dict(name='sgd', epochs=1, schedule='step', truncate_warmup=True),
}
DECAYS = {'ema9998': 0.9998, 'ema9': 0.9}


def attacks(runner: Runner, size: int, pixels: int) -> Arrays:
  """Returns what is recorded of the training and the validation attack."""
  batch = runner.batch(size, pixels)
  image = batch['image']
  noise = runner.rule.noise(size, pixels, golden.EPS)
  start = noisy(image, noise)
  result: dict[str, Any] = {'noise': noise}

  values = climb(runner, runner.variables, start, image, batch['label'], 3)[1]
  result['pgd2_losses_per_sample'] = values
  x = runner.pgd2(runner.variables, start, image, batch['label'])
  x = runner.normalised(x)
  result['pgd2_x_adv'] = x
  result['pgd2_x_adv_flat_stride97'] = x.reshape(-1)[::STRIDE]

  x, values = climb(
    runner, runner.variables, start, image, batch['hard'], 10, golden.EPS / 4
  )
  result['pgd10_losses_per_sample'] = values
  result['pgd10_final_logits'] = runner.evaluate(runner.variables, x)['logits']
  x = runner.normalised(x)
  result['pgd10_x_adv_flat_stride97'] = x.reshape(-1)[::STRIDE]

  gradient = start_gradient(runner, start, batch['label'])
  gradient = np.asarray(gradient).transpose(0, 3, 1, 2)
  result['grad0_flat_stride97'] = gradient.reshape(-1)[::STRIDE]
  result['grad0_norm'] = np.linalg.norm(gradient.astype(np.float64))
  return {k: np.asarray(v) for k, v in result.items()}


def noisy(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
  """Returns the random start with the given noise (B, 3, H, W)."""
  noise = noise.transpose(0, 2, 3, 1).astype(image.dtype)
  return np.clip(image + noise, 0, 1)


def climb(
  runner: Runner,
  variables: Any,
  x: Any,
  image: Any,
  label: Any,
  count: int,
  step_size: float = golden.EPS,
) -> tuple[Any, np.ndarray]:
  """Takes steps; returns their end and the losses before each, (count, B)."""
  values = []
  for _ in range(count):
    step = jnp.asarray(step_size, runner.dtype)
    x, value = runner.climb(variables, x, image, label, step)
    values.append(value)
  return x, np.stack(values)


def start_gradient(runner: Runner, start: Any, label: Any) -> jax.Array:
  """Returns the gradient of the batch's mean loss at the random start."""
  predict = runner.predict(runner.variables)
  mean = lambda x: jnp.mean(losses.cross_entropy(predict(x), label))
  return jax.jit(jax.grad(mean))(start)


def sgd(runner: Runner, state_keys: list[str], param_keys: list[str]) -> Arrays:
  """Returns what is recorded of three clean and two adversarial steps."""
  result: Arrays = {}
  for mode, steps in (('clean', 3), ('at', 2)):
    result |= _steps(runner, mode, steps, state_keys, param_keys)
  mask = optim.decay_mask(runner.variables['params'])
  decay = jax.tree.map(
    lambda x, decays: jnp.full(x.shape, 1e-4 if decays else 0.0, runner.dtype),
    runner.variables['params'],
    mask,
  )
  rows = runner.tensors(runner.variables | {'params': decay})
  result['weight_decay_of_key'] = np.array(
    [rows[k].max() if k in rows else np.nan for k in param_keys]
  )
  return result


def _steps(
  runner: Runner,
  mode: str,
  steps: int,
  state_keys: list[str],
  param_keys: list[str],
) -> Arrays:
  batch = runner.batch(4, 96) | {'source': np.array([1, 0, 1, 1], np.int32)}
  del batch['hard']
  image = batch['image']
  noise = runner.rule.noise(4, 96, golden.EPS)
  tx, schedule = optim.make(SECTIONS['at'], *SCHEDULE)
  update = jax.jit(tx.update)
  variables = runner.variables
  initial = runner.tensors(variables)
  opt_state = jax.jit(tx.init)(variables['params'])
  averages = dict.fromkeys(DECAYS, variables)
  result: dict[str, Any] = {}
  for step in range(1, steps + 1):
    prefix = f'{mode}/step{step}'
    if mode == 'at':
      start = noisy(image, noise)
      x = runner.pgd2(variables, start, image, batch['label'])
      values = climb(runner, variables, start, image, batch['label'], 3)[1]
      result[f'{prefix}/attack_losses_per_sample'] = values
      sample = runner.normalised(x).reshape(-1)[::STRIDE]
      result[f'{prefix}/x_adv_flat_stride97'] = sample
      batch = batch | {'image': x}
    gradients, ((stats, metrics), _) = runner.differentiate(variables, batch)
    updates, opt_state = update(gradients, opt_state, variables['params'])
    params = optax.apply_updates(variables['params'], updates)
    variables = {'params': params, 'batch_stats': stats}
    averages = {
      name: optim.update_ema(averages[name], variables, decay)
      for name, decay in DECAYS.items()
    }
    names = ('class_loss', 'part_loss', 'loss')
    result |= {
      f'{prefix}/lr_used': schedule(step - 1),
      f'{prefix}/losses_cls_seg_total': [float(metrics[k]) for k in names],
    }
    for name, value in (('state', variables), *averages.items()):
      rows = runner.tensors(value)
      result[f'{prefix}/{name}_first16'] = first(rows, state_keys)
      result[f'{prefix}/{name}_delta_norm'] = np.array(
        [distance(rows, initial, k) for k in state_keys]
      )
    momentum = {'params': momentum_of(opt_state), 'batch_stats': stats}
    rows = runner.tensors(momentum)
    result[f'{prefix}/momentum_first16'] = first(rows, param_keys)
  return {k: np.asarray(v) for k, v in result.items()}


def distance(rows: Arrays, initial: Arrays, key: str) -> float:
  """Returns the L2 norm of a tensor's change; NaN if it does not exist."""
  if key not in rows:
    return np.nan
  change = rows[key].astype(np.float64) - initial[key].astype(np.float64)
  return float(np.linalg.norm(change))


def momentum_of(opt_state: Any) -> Any:
  """Returns the momentum inside an optimiser's state."""
  is_trace = lambda x: isinstance(x, optax.TraceState)
  leaves = jax.tree.leaves(opt_state, is_leaf=is_trace)
  return next(x.trace for x in leaves if is_trace(x))


def rates(stored: dict[str, np.ndarray]) -> Arrays:
  """Returns learning rates and attack steps at the recorded updates."""
  result: dict[str, Any] = {}
  for name, section in SECTIONS.items():
    _, schedule = optim.make(section, *SCHEDULE)
    result[f'{name}_lr'] = jax.vmap(schedule)(stored['updates'])
    result[f'{name}_num_epochs'] = section['epochs']
  ramp = lambda epoch: optim.attack_ramp(
    epoch * SCHEDULE[0], SCHEDULE[0], 2, by_epoch=True
  )
  # Two steps that together may cross the ball.
  full = golden.EPS * 2 / 2
  result['attack_step'] = full * jax.vmap(ramp)(stored['attack_epochs'])
  return {k: np.asarray(v) for k, v in result.items()}
