"""One page over runs: their headlines, pictures, and links to their reports."""

import json

import numpy as np
import pytest

from pinpp_jax.data import Recorded
from pinpp_jax.errors import UserError
from pinpp_jax.evals import samples
from pinpp_jax.tools import overview


@pytest.fixture
def trained(mini_data, tmp_path):
  """What a training run leaves behind, as far as the page reads it."""
  run = tmp_path / 'runs' / 'mpm-mini'
  run.mkdir(parents=True)
  source = Recorded(dataset='pinpp_mini', data_dir=str(mini_data), split='test')
  source.labels.save(run / 'labels.json')
  attack = dict(name='pgd', norm='linf', eps=4 / 255, steps=10)
  config = {
    'run': 'train',
    'model': {'name': 'mpm'},
    'data': {'name': 'pinpp_mini'},
    'attack': attack,
    'evals': {
      'clean': {'name': 'accuracy'},
      'pgd10': {'name': 'accuracy', 'prefix': 'pgd10', 'attack': attack},
    },
    'headlines': ['test/clean_accuracy', 'test/pgd10_accuracy'],
  }
  scores = {
    'test/clean_accuracy': 0.625,
    'test/clean_examples': 48.0,
    'test/clean_loss': 1.5,
    'test/pgd10_accuracy': 0.25,
    'test/pgd10_examples': 48.0,
  }
  for name, value in (
    ('config', config),
    ('scores', scores),
    ('env', {'command': 'python -m <it>'}),
  ):
    (run / f'{name}.json').write_text(json.dumps(value))
  rng = np.random.default_rng(0)
  samples.save(
    run / 'samples.npz',
    [
      samples.Sample(
        image=rng.integers(0, 256, (32, 32, 3), np.uint8),
        true=np.zeros((4, 4), np.int32),
        predicted=np.ones((4, 4), np.int32),
        label=0,
        predicted_class=0,
        masked=True,
      )
    ]
    * 9,
  )
  return run


def test_a_page_over_runs(trained, tmp_path):
  page = overview.write([trained, trained], tmp_path / 'pages' / 'all.html')
  html = page.read_text()
  assert html.count('62.5 %') == 2 and html.count('25.0 %') == 2
  assert 'PGD L∞, ε = 4/255, 10 steps' in html
  assert 'href="../runs/mpm-mini/report.html"' in html
  assert 'python -m &lt;it&gt;' in html
  assert html.count('predicted parts of') == 2 * overview.PICTURES
  # It asks nothing of any other file: pictures are in it.
  assert 'src="data:' in html and 'src="http' not in html
  assert not list(page.parent.glob('*.part'))


def test_an_unfinished_run_is_named(trained, tmp_path, capsys):
  (trained / 'scores.json').unlink()
  with pytest.raises(UserError, match='mpm-mini holds no finished run'):
    overview.write([trained], tmp_path / 'all.html')
  words = [str(trained), f'--output={tmp_path / "all.html"}']
  assert overview.main(words) == 2
  assert 'mpm-mini' in capsys.readouterr().err
  assert not (tmp_path / 'all.html').exists()
