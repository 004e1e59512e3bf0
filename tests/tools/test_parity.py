import pathlib
import re
import shutil

import numpy as np
import pytest

from pinpp_jax.tools.parity import cli, mixup
from pinpp_jax.tools.parity import golden as golden_rule
from pinpp_jax.tools.parity.compare import Measure, error, tolerance

ROOT = pathlib.Path(__file__).parents[2]


def copy(golden, folder, *names):
  for name in names:
    shutil.copy(golden / name, folder / name)
  return folder


def change(path: pathlib.Path, **arrays):
  with np.load(path) as data:
    np.savez(path, **(dict(data) | arrays))


def run(folder, capsys):
  status = cli.main([str(folder)])
  return status, capsys.readouterr()


def failures(output):
  """Returns the names of failed lines, which come again at the end."""
  lines = output.out.splitlines()
  return sorted({line.split()[1] for line in lines if line.startswith('FAIL')})


def test_rule_and_rates_agree(golden, tmp_path, capsys):
  copy(golden, tmp_path, 'lr.npz', 'rule_check.npz', 'mpm_state_dict.json')
  status, output = run(tmp_path, capsys)
  assert status == 0 and not failures(output)
  assert 'lr.npz:at_lr' in output.out
  assert 'rule_check.npz:twostage_sum' in output.out


@pytest.mark.slow
def test_all_given_numbers_agree_as_the_readme_says(golden, capsys):
  status, output = run(golden, capsys)
  assert status == 0, failures(output)
  compared = re.search(r'(\d+) compared, 0 failed', output.out)
  assert f'{compared[1]} of {compared[1]} quantities' in ' '.join(
    (ROOT / 'README.md').read_text().split()
  )


def test_own_rule_is_the_folders(golden):
  own, theirs = golden_rule.OwnRule(), golden_rule.rule(golden)
  assert not isinstance(theirs, golden_rule.OwnRule)
  for key, shape in (
    ('a.bn3.weight', (7,)),
    ('a.weight', (3, 2, 1, 1)),
    ('a.weight', (3,)),
    ('a.bias', (3,)),
    ('a.running_mean', (3,)),
    ('a.running_var', (3,)),
    ('a.num_batches_tracked', ()),
  ):
    mine, other = own.fill_array(key, shape), theirs.fill_array(key, shape)
    np.testing.assert_array_equal(mine, other)
    assert mine.dtype == other.dtype
  for name, arguments in (
    ('image01', (2, 64)),
    ('labels', (3, 10)),
    ('mask', (2, 64, 41)),
    ('noise', (2, 64, 0.1)),
  ):
    mine, other = (getattr(r, name)(*arguments) for r in (own, theirs))
    np.testing.assert_array_equal(mine, other)


def test_one_changed_value_is_found_and_named(golden, tmp_path, capsys):
  copy(golden, tmp_path, 'lr.npz')
  with np.load(golden / 'lr.npz') as data:
    rates = data['ori_lr'].copy()
  rates[5] *= 1.001
  change(tmp_path / 'lr.npz', ori_lr=rates)
  status, output = run(tmp_path, capsys)
  assert status == 1 and failures(output) == ['lr.npz:ori_lr']


def test_outputs_of_the_model_agree_except_the_changed_one(
  golden, tmp_path, capsys
):
  with np.load(golden / 'mpm_l3_down.npz') as data:
    part = {
      k: v for k, v in data.items() if 'f32/b2_s96' in k or k == 'grad_keys'
    }
  damaged = 'f32/b2_s96/eval_seg1_flat_stride97'
  part[damaged] = part[damaged].copy()
  part[damaged][3] += 0.01 * np.abs(part[damaged]).max()
  np.savez(tmp_path / 'mpm_l3_down.npz', **part)
  status, output = run(tmp_path, capsys)
  assert status == 1
  assert failures(output) == [f'mpm_l3_down.npz:{damaged}']
  assert output.out.count('ok ') == len(part) - 1


def test_unknown_keys_and_files_are_failures(golden, tmp_path, capsys):
  copy(golden, tmp_path, 'lr.npz')
  change(tmp_path / 'lr.npz', other_lr=np.zeros(3))
  (tmp_path / 'sgd.npz').write_bytes(b'')
  (tmp_path / 'mixup.npz').write_bytes(b'not an archive')
  status, output = run(tmp_path, capsys)
  assert status == 1
  assert failures(output) == ['lr.npz:other_lr', 'mixup.npz', 'sgd.npz']


def test_nothing_to_compare_is_a_failure(tmp_path, capsys):
  status, output = run(tmp_path, capsys)
  assert status == 1 and 'nothing to compare' in output.err
  status, output = run(tmp_path / 'absent', capsys)
  assert status == 2 and 'not a folder' in output.err


@pytest.mark.parametrize(
  ('seed', 'cut', 'lam', 'box'),
  [
    (0, False, 0.5315061016529674, None),
    (1, False, 5.2757466215122114e-05, None),
    (2, True, 0.7443576388888888, (0, 38, 3, 65)),
    (3, True, 0.62890625, (0, 57, 36, 96)),
  ],
)
def test_draws_are_timms(seed, cut, lam, box):
  """Against draws recorded from timm 0.9.7's rules at 96 pixels."""
  drawn = mixup.draw(seed, 96, cut=cut, drawn=True)
  assert drawn.box == box
  assert drawn.lam == pytest.approx(lam, rel=1e-12)


def test_mixing_is_judged(tmp_path, capsys):
  """A file written with plain numpy, from the rule and the definition."""
  rule, share = golden_rule.OwnRule(), mixup.draw(
    0, 96, cut=False, drawn=True
  ).lam  # fmt: skip
  blend = lambda x: share * x + (1 - share) * x[::-1]
  mean, std = (x[:, None, None] for x in (golden_rule.MEAN, golden_rule.STD))
  image = blend((rule.image01(4, 96) - mean) / std)
  soft = lambda x, n: np.eye(n)[x] * 0.9 + 0.1 / n
  finest = blend(soft(rule.mask(4, 96, 41)[:, ::8, ::8], 41))
  middle = finest.reshape(4, 6, 2, 6, 2, 41).mean((2, 4))
  arrays = {
    'seed': 0,
    'lam': share,
    'box_yl_yh_xl_xh': np.zeros(4, int),
    'image_flat_stride97': image.reshape(-1)[::97].astype(np.float32),
    'target_cls': blend(soft(rule.labels(4, 10), 10)),
    'seg0': finest.transpose(0, 3, 1, 2)[:, :, ::2, ::2],
    'seg1': middle.transpose(0, 3, 1, 2)[:, :, ::2, ::2],
  }
  path = tmp_path / 'mixup.npz'
  np.savez(path, **{f'mixup0/{k}': v for k, v in arrays.items()})
  status, output = run(tmp_path, capsys)
  assert status == 0, output.out
  arrays['seg1'][0, 0, 0, 0] += 0.1
  np.savez(path, **{f'mixup0/{k}': v for k, v in arrays.items()})
  status, output = run(tmp_path, capsys)
  assert status == 1 and failures(output) == ['mixup.npz:mixup0/seg1']


def test_measures():
  x = np.array([[1.0, 2.0], [100.0, 200.0]])
  y = x + np.array([[0.1, 0.0], [0.0, 0.0]])
  measure = lambda kind: error(Measure(kind=kind), x, y)
  assert measure('largest') == pytest.approx(0.1 / 200)
  assert measure('rows') == pytest.approx(0.1 / 2)
  assert measure('each') == pytest.approx(0.1 / 1.1)
  assert measure('absolute') == pytest.approx(0.1)
  assert measure('exact') == 1
  assert measure('pixels') == 0.25
  assert error(Measure(kind='pixels', limit=0.05), x, y) == np.inf
  assert error(Measure(kind='largest'), x, y[:1]) == np.inf
  missing = np.where(x == 1, np.nan, x)
  assert error(Measure(kind='largest'), x, missing) == np.inf
  assert error(Measure(kind='largest'), missing, missing) == 0


def test_tolerance_depends_on_both_precisions():
  measure = Measure(kind='each', single=1, mixed=2, double=3)
  assert tolerance(measure, 'f32/x', False) == 1
  assert tolerance(measure, 'f64/x', False) == 2
  assert tolerance(measure, 'f32/x', True) == 2
  assert tolerance(measure, 'f64/x', True) == 3
