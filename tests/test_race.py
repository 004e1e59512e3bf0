"""The opponents of the race are what they are said to be."""

import dataclasses

import numpy as np
import pytest

from pinpp_jax import models
from pinpp_jax.tools.parity import golden as golden_rule

torch = pytest.importorskip('torch', reason='torch is not installed')

from benchmarks.race import work as work_lib
from benchmarks.torch_rival import losses
from benchmarks.torch_rival import steps as steps_lib
from benchmarks.torch_rival.mpm import MPM

IMAGES, PIXELS = 4, 96
STYLES = {'R0': steps_lib.R0, 'R1': steps_lib.R1, 'R2': steps_lib.R2}


def filled(rule, style):
  """A step of PyTorch's from the golden weights."""
  network = MPM(
    50, 64, golden_rule.CLASSES, golden_rule.PARTS + 1, lean=style.lean
  )
  network.load_state_dict(
    {
      name: torch.tensor(rule.fill_array(name, tuple(tensor.shape)))
      for name, tensor in network.state_dict().items()
    }
  )
  return network


def golden_batch(rule):
  image = rule.image01(IMAGES, PIXELS).transpose(0, 2, 3, 1)
  mask = rule.mask(IMAGES, PIXELS, golden_rule.PARTS + 1)[:, ::8, ::8]
  return {
    'image': torch.tensor(image.copy()),
    'label': torch.tensor(rule.labels(IMAGES, golden_rule.CLASSES)),
    'parts': torch.tensor(mask.copy()),
    'source': torch.tensor([1, 0, 1, 1]),
  }


@pytest.mark.parametrize(
  ('name', 'mode', 'count'),
  [('R0', 'clean', 1), ('R0', 'at', 2), ('R1', 'at', 1), ('R2', 'at', 2)],
)
def test_steps_are_the_references(golden, name, mode, count):
  rule, style = golden_rule.rule(golden), STYLES[name]
  task = steps_lib.Task(
    parts=True,
    robust=mode == 'at',
    classes=golden_rule.CLASSES,
    learning_rate=0.0,
  )
  steps = steps_lib.Steps(filled(rule, style), style, task)
  batch = golden_batch(rule)
  image = batch['image'].permute(0, 3, 1, 2)
  noise = rule.noise(IMAGES, PIXELS, steps_lib.EPS)
  start = (image + torch.tensor(noise)).clamp(0, 1)
  with np.load(golden / 'sgd_ema.npz') as data:
    for step in range(1, count + 1):
      expected = lambda key, step=step: data[f'f32/{mode}/step{step}/{key}']
      for group in steps.optimiser.param_groups:
        group['lr'] = float(expected('lr_used'))
      loss = steps(batch, start)
      total = expected('losses_cls_seg_total')[2]
      # Between the steps of an attack signs turn; clean ones agree closely.
      assert float(loss) == pytest.approx(total, rel=2e-5)
    for network, key in (
      (steps.network, 'state_first16'),
      (steps.average, 'ema9998_first16'),
    ):
      tensors = network.state_dict()
      for row, values in zip(data['state_keys'], expected(key), strict=True):
        mine = tensors[str(row)].reshape(-1)[:16].numpy()
        np.testing.assert_allclose(
          mine, values[: mine.size], atol=2e-5, err_msg=str(row)
        )


def test_sparse_loss_is_the_dense_one():
  generator = torch.Generator().manual_seed(0)
  outputs = [
    torch.randn(2, 7, n, n, generator=generator, requires_grad=True)
    for n in (8, 4, 2)
  ]
  grid = torch.randint(0, 7, (2, 8, 8), generator=generator)
  weight = torch.tensor([1.0, 0.5])
  found = []
  for loss in (losses.dense_part_loss, losses.sparse_part_loss):
    value = loss(outputs, grid, weight)
    found.append([value, *torch.autograd.grad(value, outputs)])
  for dense, sparse in zip(*found, strict=True):
    torch.testing.assert_close(sparse, dense, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
  ('network', 'robust', 'gflops'),
  [
    ('resnet', False, 24.30),
    ('mpm', True, 69.70),
  ],
)
def test_work_of_the_published_steps(network, robust, gflops):
  model = models.MODELS[network](
    num_classes=1000, num_parts=3310, depth=50, activation='gelu'
  )
  task = steps_lib.Task(
    parts=network == 'mpm', robust=robust, classes=1000, learning_rate=0.0
  )
  work = work_lib.of_step(model, 224, task)
  assert work.flops / 1e9 == pytest.approx(gflops, abs=0.01)


def test_an_opponent_that_is_lean_leaves_the_bypass_out():
  shapes = dict(depth=10, width=8, classes=5, channels=9)
  image = torch.rand(2, 3, 64, 64)
  calls = []
  for lean in (False, True):
    network = MPM(**shapes, lean=lean).eval()
    network.cp1.register_forward_hook(lambda *_: calls.append(1))
    network(image)
  assert len(calls) == 1
  assert dataclasses.replace(steps_lib.R2, lean=False) == steps_lib.R1
