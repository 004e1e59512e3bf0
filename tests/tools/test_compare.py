import json
import math

import pytest

from pinpp_jax import tools
from pinpp_jax.errors import UserError
from pinpp_jax.tools import compare


def result(robust, **changes):
  return {
    'norm': 'linf', 'eps': 0.1, 'version': 'standard', 'images': len(robust),
    'ids': list(range(len(robust))), 'identity': {'individual': False},
    'flags': {'clean': '1' * len(robust), 'robust': robust, 'square': robust},
  } | changes  # fmt: skip


def test_counts_and_the_exact_test():
  found = compare.compare(result('1111100000'), result('0000011100'))
  assert set(found) == {'clean', 'robust'}
  pair = found['robust']
  assert (pair.first, pair.second) == (5, 3)
  assert (pair.only_first, pair.only_second) == (5, 3)
  # Both tails of a fair coin thrown eight times: 5 or more, 3 or fewer.
  tail = sum(math.comb(8, k) for k in range(5, 9)) / 2**8
  assert pair.p_value == pytest.approx(2 * tail)
  assert found['clean'].p_value == 1


def test_single_attacks_only_where_each_had_every_image():
  alone = {'identity': {'individual': True}}
  assert 'square' in compare.compare(
    result('10', **alone), result('11', **alone)
  )


def test_the_program(tmp_path, capsys):
  paths = [tmp_path / name for name in 'ab']
  for path, flags in zip(paths, ('1100', '1010'), strict=True):
    path.write_text(json.dumps(result(flags)))
  assert tools.main(['compare', *map(str, paths)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == '4 images, linf, eps 0.1, standard'
  assert lines[-1].split() == [
    'robust',
    '50.00',
    '%',
    '50.00',
    '%',
    '1',
    '1',
    '1.000',
  ]


@pytest.mark.parametrize(
  'changes',
  [{'norm': 'l2'}, {'eps': 0.2}, {'version': 'aa-2'}, {'ids': [1, 0]}],
)
def test_other_evaluations_are_refused(changes):
  with pytest.raises(UserError, match=[*changes][0]):
    compare.compare(result('10'), result('10', **changes))


def test_something_else_is_refused(tmp_path, capsys):
  (tmp_path / 'a').write_text('{}')
  for name in ('a', 'b'):
    assert compare.main([str(tmp_path / name)] * 2) == 2
    assert 'is not the result.json' in capsys.readouterr().err
