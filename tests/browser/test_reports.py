"""Pages that are one file: they load, are legible, and need nothing else."""

import json

import numpy as np
import pytest

from pinpp_jax import metrics, tools
from pinpp_jax.data.read.sources import Recorded
from pinpp_jax.evals import samples
from pinpp_jax.report import page as page_lib


@pytest.fixture(scope='module')
def run_page(mini_data, tmp_path_factory):
  """report.html of a run with scores, curves and predictions."""
  source = Recorded(dataset='pinpp_mini', data_dir=str(mini_data), split='test')
  folder = tmp_path_factory.mktemp('runs') / 'mpm-mini'
  folder.mkdir()
  labels, rng = source.labels, np.random.default_rng(0)
  found = []
  for i in range(4):
    label = source[i]['label']
    ids = labels.candidates[label]
    grid = ids[rng.integers(0, labels.part_counts[label] + 1, (12, 12))]
    found.append(
      samples.Sample(
        image=rng.integers(0, 256, (96, 96, 3), np.uint8),
        true=grid,
        predicted=np.roll(grid, 1, 0),
        label=label,
        predicted_class=(label + i % 2) % labels.num_classes,
        masked=i != 3,
      )
    )
  with metrics.Writer(folder) as write:
    for step in range(1, 6):
      write(step, {'train/loss': 1 / step, 'train/learning_rate': 0.1})
  labels.save(folder / 'labels.json')
  samples.save(folder / 'samples.npz', found)
  return page_lib.write(folder, command='python -m pinpp_jax.main')


@pytest.fixture(scope='module')
def check_page(mini_data, tmp_path_factory):
  page = tmp_path_factory.mktemp('check') / 'check.html'
  release = mini_data / 'downloads' / 'manual' / 'pinpp_mini'
  words = ['check', str(release), f'--imagenet_dir={release / "imagenet"}']
  assert tools.main([*words, f'--html={page}']) == 0
  return page


@pytest.fixture(scope='module')
def stats_page(mini_data, tmp_path_factory):
  page = tmp_path_factory.mktemp('stats') / 'stats.html'
  words = ['stats', 'pinpp_mini', f'--data_dir={mini_data}']
  assert tools.main([*words, f'--html={page}']) == 0
  return page


@pytest.mark.parametrize('page', ['run_page', 'check_page', 'stats_page'])
@pytest.mark.parametrize('width', [360, 1300])
def test_a_page_is_one_file_that_fits(tab, request, page, width):
  path = request.getfixturevalue(page)
  tab.page.set_viewport_size({'width': width, 'height': 800})
  tab.page.goto(path.as_uri())
  assert tab.strangers(path.as_uri(), 'data:') == []
  broken = tab.page.eval_on_selector_all(
    'img', 'nodes => nodes.filter((n) => !n.complete || !n.naturalWidth).length'
  )
  assert broken == 0
  silent = tab.page.eval_on_selector_all(
    'img', 'nodes => nodes.filter((n) => !n.alt.trim()).length'
  )
  assert silent == 0
  wide = tab.page.evaluate('document.documentElement.scrollWidth')
  assert wide <= width


def test_details_of_a_report_open(tab, run_page):
  tab.page.goto(run_page.as_uri())
  assert tab.page.locator('.pictures article').count() == 4
  assert tab.page.locator('.badge.right').count() == 2
  for one in tab.page.locator('details').all():
    one.locator('summary').click()
    assert one.get_attribute('open') is not None


def test_dark_pages_are_dark(tab, run_page):
  """Drawings are turned round with the page, photographs are not."""
  tab.page.emulate_media(color_scheme='dark')
  tab.page.goto(run_page.as_uri())
  look = tab.page.evaluate(
    """JSON.stringify({
      ground: getComputedStyle(document.body).backgroundColor,
      drawing: getComputedStyle(document.querySelector('img[src*=svg]')).filter,
      photograph: getComputedStyle(document.querySelector('.row img')).filter,
    })"""
  )
  found = json.loads(look)
  assert found['ground'] == 'rgb(20, 24, 29)'
  assert 'invert' in found['drawing'] and found['photograph'] == 'none'
