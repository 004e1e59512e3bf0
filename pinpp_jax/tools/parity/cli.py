"""Compares this project with numbers recorded from the PyTorch reference.

  pinpp parity FOLDER [--x64]

Everything a folder of golden files holds is computed again, with the options
under which we are the reference's equal: weights and inputs by the fill rule,
outputs, targets, losses, gradients, running statistics, optimiser steps,
averages, learning rates, attacks and mixing. One line for each quantity. The
exit status is 1 if one is off, unknown or nothing was compared, 2 if there is
no such folder.

In float32 by default: recorded float64 values are then compared at float32's
tolerance. With --x64 we compute in float64, and they are compared at its own.

Convolutions and pooling are XLA's own. The forms that replace them on CPUs
differ by rounding; tests/models hold each to an error bound of its own.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
import functools
import json
import pathlib
import re
import sys
from typing import Any
import zipfile

import jax
import numpy as np

from pinpp_jax import models
from pinpp_jax.models import cpu_forms
from pinpp_jax.models.torch import importer
from pinpp_jax.models.torch import names as names_lib
from pinpp_jax.tools.parity import golden, mixup, steps
from pinpp_jax.tools.parity import model as model_lib
from pinpp_jax.tools.parity.compare import Line, Measure, failure, judge

IGNORED = ('README.md', golden.RULE_FILE, '__pycache__')

EXACT = Measure(kind='exact')
CLOSE = Measure(kind='largest', single=2e-5, mixed=5e-5, double=1e-9)
ROWS = Measure(kind='rows', single=1e-4, double=1e-8, floor=1e-6)
EACH = Measure(kind='each', single=2e-5, double=1e-9, floor=1e-6)
VALUES = Measure(kind='absolute', single=2e-6, double=1e-9)
# Changes next to values of 1, which float32 rounds to 6e-8.
CHANGE = Measure(kind='each', single=5e-4, mixed=2e-2, double=1e-8, floor=1e-4)
SMALL_CHANGE = Measure(kind='absolute', single=1e-4, double=1e-9)
SUMS = Measure(kind='each', single=1e-9, double=1e-9)
PIXELS = Measure(kind='pixels', single=1e-3, limit=2.1 * golden.EPS / 0.224)
# Ten steps amplify rounding through the gradient's sign: the reference's own
# float32 and float64 runs differ by 2 % of pixels and by 2e-3 in logits.
MANY_STEPS = Measure(kind='largest', single=5e-3, double=1e-9)
MANY_STEPS_PIXELS = Measure(kind='pixels', single=6e-2, limit=PIXELS.limit)

# The two-stage model normalises (B, C) vectors, and a bias before it has a
# gradient of 0. With two examples what comes out is plus and minus one whatever
# they are: the gradient that is left is mostly rounding, in the reference too.
VECTORS = Measure(kind='rows', single=1e-3, double=1e-7, noise=1e-5)
TWO_VECTORS = Measure(kind='rows', single=1e-1, double=1e-6, noise=1e-4)
TWO_VECTORS_LOGITS = Measure(kind='largest', single=1e-3, double=1e-9)

# By 'file:key'; the first that fits.
MEASURES = {
  r'(_keys|_shapes|_first4|/noise|/seed|/use_cutmix)$': EXACT,
  r':(labels_b|mask_|updates|attack_epochs|\w+_num_epochs)': EXACT,
  r'/(box_\w*|pixel_seg\d)$': EXACT,
  r'/target_seg\d_sum$': CLOSE,
  r'_sum$': SUMS,
  r'/pgd10_x_adv': MANY_STEPS_PIXELS,
  r'/pgd10_': MANY_STEPS,
  r'x_adv': PIXELS,
  r'twostage.*/b2_.*/w\d_grad_': TWO_VECTORS,
  r'twostage.*/b2_.*/(train_logits|w\d_loss_(cls|total))$': TWO_VECTORS_LOGITS,
  r'twostage.*/w\d_grad_': VECTORS,
  r'(w\d_grad_norm|grad0_norm)$': EACH,
  r'(w\d_grad|momentum|bn_after)_first16$': ROWS,
  r'(state|ema\w+)_first16$': VALUES,
  r'(state|ema9)_delta_norm$': CHANGE,
  r'ema9998_delta_norm$': SMALL_CHANGE,
  r'(weight_decay_of_key|lr_used|_lr|attack_step)$': EACH,
  r'': CLOSE,
}


class Folder:
  """A folder of golden files, and how to judge each of them."""

  def __init__(self, path: pathlib.Path, *, double: bool):
    self.path = path
    self.double = double
    self.rule = golden.rule(path)

  def lines(self) -> list[Line]:
    """Returns one line per quantity, printing each as it is known."""
    lines: list[Line] = []
    for path in sorted(self.path.iterdir()):
      if path.name in IGNORED or path.name.startswith('.'):
        continue
      for line in self._judge(path):
        print(line, flush=True)
        lines.append(line)
      # No file needs what was compiled for another.
      jax.clear_caches()
    return lines

  def _judge(self, path: pathlib.Path) -> list[Line]:
    kinds: dict[str, Callable[..., list[Line]]] = {
      r'rule_check\.npz': self._rule_check,
      r'lr\.npz': self._rates,
      r'mixup\.npz': self._mixup,
      r'attack\.npz': self._attack,
      r'sgd_ema\.npz': self._sgd,
      r'(mpm_l[123]_(no)?down|twostage)\.npz': self._model,
      r'(mpm|twostage)_state_dict\.json': self._state_dict,
    }
    for pattern, kind in kinds.items():
      if re.fullmatch(pattern, path.name):
        try:
          return kind(path)
        except (zipfile.BadZipFile, ValueError, OSError, KeyError) as problem:
          return [failure(path.name, f'not readable: {problem!r}')]
    return [failure(path.name, 'file not understood')]

  def _compare(self, path, stored, mine):
    return judge(path.name, stored, mine, MEASURES, double=self.double)

  def _runner(self, name: str) -> model_lib.Runner:
    return model_lib.Runner(model(name), self.rule, double=self.double)

  def _rule_check(self, path):
    stored = read(path)
    mine = {}
    for kind in ('mpm', 'twostage'):
      if f'{kind}_keys' in stored:
        mine |= rule_rows(self.rule, kind, list(stored[f'{kind}_keys']))
    for key in stored:
      found = re.fullmatch(r'(image01|mask|noise)_b(\d+)_s(\d+)_\w*sum', key)
      if found:
        batch, size = int(found[2]), int(found[3])
        mine[key] = (
          {
            'image01': lambda b, s: self.rule.image01(b, s),
            'mask': lambda b, s: self.rule.mask(b, s, golden.PARTS + 1),
            'noise': lambda b, s: np.abs(self.rule.noise(b, s, golden.EPS)),
          }[found[1]](batch, size)
          .astype(np.float64)
          .sum()
        )
      found = re.fullmatch(r'labels_b(\d+)', key)
      if found:
        mine[key] = self.rule.labels(int(found[1]), golden.CLASSES)
    return self._compare(path, stored, mine)

  def _rates(self, path):
    stored = read(path)
    mine = steps.rates(stored)
    mine |= {k: stored[k] for k in ('updates', 'attack_epochs')}
    return self._compare(path, stored, mine)

  def _mixup(self, path):
    stored = read(path)
    mine = mixup.mixing(self.rule, stored)
    # Mixing is float32 always.
    return judge(path.name, stored, mine, MEASURES, double=False)

  def _state_dict(self, path):
    """Names and shapes of the full-size models, for 1000 classes."""
    content = json.loads(path.read_text())
    rows = content['tensors'] if isinstance(content, dict) else content
    stored = {r['key']: tuple(r['shape']) for r in rows}
    large = model(path.name.split('_')[0]).clone(
      num_classes=1000, num_parts=3310
    )
    mine = {k: e.shape for k, e in names_lib.entries(large).items()}
    lines = []
    for key in sorted(set(stored) | set(mine)):
      if key.endswith('num_batches_tracked'):
        continue
      theirs, ours = stored.get(key), mine.get(key)
      if theirs != ours:
        note = f'shape {theirs}, ours is {ours}'
        lines.append(failure(f'{path.name}:{key}', note))
    passed = Line(name=f'{path.name}:shapes', error=0, tolerance=0)
    return lines or [passed]

  def _model(self, path):
    stored = read(path)
    runner = self._runner(path.stem)
    grads = list(stored.get('grad_keys', []))
    evaluate = functools.cache(
      lambda tag: model_lib.evaluation(runner, *sizes(tag))
    )
    train = functools.cache(
      lambda tag, statistics: model_lib.training(
        runner, *sizes(tag), grads, list(statistics)
      )
    )
    mine = {'grad_keys': known_names(runner, grads, 'params')}
    for start in starts(stored):
      tag = start.split('/')[1]
      if start + 'eval_logits' in stored:
        mine |= {start + k: v for k, v in evaluate(tag).items()}
      if start + 'train_logits' in stored:
        statistics = tuple(stored.get(start + 'bn_after_keys', ()))
        values = train(tag, statistics)
        mine |= {start + k: v for k, v in values.items()}
        names = known_names(runner, list(statistics), 'batch_stats')
        mine[start + 'bn_after_keys'] = names
    return self._compare(path, stored, mine)

  def _attack(self, path):
    stored = read(path)
    runner = self._runner('mpm_l3_down')
    attacks = functools.cache(lambda tag: steps.attacks(runner, *sizes(tag)))
    mine = {}
    for start in starts(stored):
      values = attacks(start.split('/')[1])
      mine |= {start + k: v for k, v in values.items()}
    return self._compare(path, stored, mine)

  def _sgd(self, path):
    stored = read(path)
    runner = self._runner('mpm_l3_down')
    state, params = (list(stored[f'{k}_keys']) for k in ('state', 'param'))
    values = steps.sgd(runner, state, params)
    mine = {
      'state_keys': known_names(runner, state, 'params', 'batch_stats'),
      'param_keys': known_names(runner, params, 'params'),
      'weight_decay_of_key': values.pop('weight_decay_of_key'),
    }
    for prefix in ('f32', 'f64'):
      mine |= {f'{prefix}/{k}': v for k, v in values.items()}
    return self._compare(path, stored, mine)


def model(name: str) -> Any:
  """Returns the network that a file's name stands for."""
  size: dict[str, Any] = dict(
    num_classes=golden.CLASSES, num_parts=golden.PARTS
  )
  if name == 'twostage':
    return models.TwoStage(activation='gelu', **size)
  variant = re.fullmatch(r'mpm_l(\d)_(no)?down', name)
  if variant is None:
    return models.MPM(**size)
  return models.MPM(level=int(variant[1]), top_down=not variant[2], **size)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of a file; pickles are refused."""
  with np.load(path, allow_pickle=False) as data:
    return dict(data)


def starts(stored: Mapping[str, np.ndarray]) -> list[str]:
  """Returns the beginnings 'f32/b4_s96/' of keys, the tag telling the sizes."""
  found = (re.match(r'f(32|64)/b\d+_s\d+/', key) for key in stored)
  return sorted({match[0] for match in found if match})


def sizes(tag: str) -> tuple[int, int]:
  """Returns batch and pixels of a tag b4_s96."""
  batch, pixels = re.findall(r'\d+', tag)
  return int(batch), int(pixels)


def known_names(
  runner: model_lib.Runner, names: list[str], *collections: str
) -> np.ndarray:
  """Returns the names if they are all that the network has there.

  Names of layers that a variant does not build may be among them. Otherwise
  they come back marked, or with those that are missing.
  """
  own = [k for k, e in runner.entries.items() if e.path[0] in collections]
  known = set(own) | importer.unused(runner.model)
  marked = [k if k in known else f'unknown {k}' for k in names]
  return np.array(marked + sorted(set(own) - set(names)))


def rule_rows(
  rule: golden.Rule, kind: str, keys: list[str]
) -> dict[str, np.ndarray]:
  """Returns sums and first values of all tensors of a model by the rule."""
  entries = names_lib.entries(model(kind))
  shapes = [entries[k].shape if k in entries else () for k in keys]
  arrays = [rule.fill_array(k, s) for k, s in zip(keys, shapes, strict=True)]
  wide = [x.astype(np.float64) for x in arrays]
  return {
    f'{kind}_keys': np.array(
      [k if k in entries else f'unknown {k}' for k in keys]
      + sorted(set(entries) - set(keys))
    ),
    f'{kind}_shapes': np.array([','.join(map(str, s)) for s in shapes]),
    f'{kind}_sum': np.array([x.sum() for x in wide]),
    f'{kind}_abs_sum': np.array([np.abs(x).sum() for x in wide]),
    f'{kind}_first4': np.stack([np.resize(x, 4) for x in arrays]),
  }


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the tool and returns its exit status."""
  parser = argparse.ArgumentParser(
    prog='parity', description='Compare with recorded reference numbers.'
  )
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--x64', action='store_true', help='compute in float64')
  options = parser.parse_args(arguments)
  if not options.folder.is_dir():
    print(f'parity: {options.folder} is not a folder', file=sys.stderr)
    return 2
  if options.x64:
    jax.config.update('jax_enable_x64', True)
  with cpu_forms.plain():
    lines = Folder(options.folder, double=options.x64).lines()
  failed = [line for line in lines if not line.passed]
  print(f'{len(lines)} compared, {len(failed)} failed')
  for line in failed:
    print(line)
  if not lines:
    print(f'parity: nothing to compare in {options.folder}', file=sys.stderr)
  return 1 if failed or not lines else 0
