import dataclasses
import json
import os
import re

import jax
import numpy as np
import pytest

from pinpp_jax import metrics
from pinpp_jax.data.labels import LabelTable, Part
from pinpp_jax.evals import samples
from pinpp_jax.report import curves, page, pictures, scores

CONFIG = {
  'run': 'train',
  'data': {'name': 'pinpp_mini'},
  'model': {'name': 'mpm', 'depth': 18},
  'evals': {
    'clean': {'name': 'accuracy'},
    'pgd10': {
      'name': 'accuracy',
      'prefix': 'pgd10',
      'attack': {
        'name': 'pgd',
        'norm': 'linf',
        'eps': 4 / 255,
        'steps': 10,
        'step_size': 1 / 255,
      },
    },
    'parts': {'name': 'segmentation'},
  },
}
SCORES = {
  'test/clean_accuracy': 0.75,
  'test/clean_loss': 0.625,
  'test/clean_examples': 1200.0,
  'test/pgd10_accuracy': 0.5,
  'test/pgd10_examples': 1000.0,
  'test/part_miou_known': 0.4,
  'test/part_miou_known_low': 0.35,
  'test/part_miou_known_high': 0.45,
  'test/masked_examples': 900.0,
  'test/part_macc_open_bg': 0.123456789,
}


@pytest.fixture
def labels():
  names = [('n01', 'cat', 'ear'), ('n01', 'cat', 'tail'), ('n02', 'c<up>', 'b')]
  return LabelTable(
    wnids=('n01', 'n02'),
    object_names=('cat', 'c<up>'),
    parts=tuple(
      Part(
        global_id=i,
        wnid=wnid,
        object_name=name,
        name=f'{name} {part}',
        generic_name=part,
        local_index=2 if i == 2 else 1,
      )
      for i, (wnid, name, part) in enumerate(names, start=1)
    ),
  )


def make_samples():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
  true = np.array([[[0, 1], [2, 2]], [[3, 0], [0, 0]]], np.int32)
  return [
    samples.Sample(
      image=image[i],
      true=true[i],
      predicted=np.array([[0, 1], [2, 0]]) * (1 - i),
      label=i,
      predicted_class=0,
      masked=True,
    )
    for i in range(2)
  ]


@pytest.fixture
def workdir(tmp_path, labels):
  folder = tmp_path / 'mpm-mini'
  folder.mkdir()
  with metrics.Writer(folder) as write:
    for step in range(1, 5):
      write(step, {'train/loss': 1 / step, 'train/learning_rate': 0.1})
    write(4, {'validation/clean_accuracy': 0.5, 'validation/clean_loss': 1})
  labels.save(folder / 'labels.json')
  samples.save(folder / 'samples.npz', make_samples())
  for name, value in {
    'config': CONFIG,
    'scores': SCORES,
    'env': {'python': '3.11', 'packages': {'jax': '0.10'}, 'command': 'run me'},
  }.items():
    (folder / f'{name}.json').write_text(json.dumps(value))
  return folder


def test_page_from_the_folder_alone(workdir):
  before = set(os.listdir(workdir))
  html = page.write(workdir).read_text()
  assert set(os.listdir(workdir)) == before | {'report.html'}
  for text in (
    '<h1>mpm-mini</h1>',
    'mpm on pinpp_mini (2 classes, 3 parts) · 4 steps',
    'run me',
    'PGD L∞, ε = 4/255, 10 steps of 1/255',
    '75.0 %',
    '35.0 % – 45.0 %',
    '1,200',
    '900',
    'Part mIoU, class known',
    '0.123457',
    'Training loss',
    'Learning rate',
    'Evaluation loss',
    'taken for cat',
    'predicted parts (67 %)',
    'jax 0.10',
    'averaged (EMA) weights',
    '&#34;depth&#34;: 18',
  ):
    assert text in html, text


def test_page_needs_nothing_else(workdir):
  html = page.write(workdir).read_text()
  links = re.findall(r'(?:src|href)="([^"]{0,30})', html)
  assert links and all(link.startswith('data:image/') for link in links)
  assert 'url(' not in html and '<script' not in html and '@import' not in html


def test_names_are_escaped(workdir):
  html = page.write(workdir).read_text()
  assert 'c&lt;up&gt;' in html and 'c<up>' not in html


def test_the_same_run_gives_the_same_page(workdir):
  first = page.write(workdir).read_bytes()
  assert page.write(workdir).read_bytes() == first


def test_an_empty_folder_gives_a_page(tmp_path):
  html = page.write(tmp_path).read_text()
  assert 'No final scores yet' in html
  assert '<img' not in html and 'Predictions' not in html


@pytest.mark.parametrize(
  'missing', ['scores', 'config', 'env', 'labels', 'samples', 'metrics']
)
def test_any_file_may_be_missing(workdir, missing):
  for path in workdir.glob(f'{missing}.*'):
    path.unlink()
  assert '</html>' in page.write(workdir).read_text()


def test_what_is_given_wins_over_the_folder(workdir, labels):
  html = page.write(
    workdir,
    title='A title',
    command='another',
    scores={'validation/clean_accuracy': 0.25},
    samples=[],
    labels=labels,
  ).read_text()
  assert '<h1>A title</h1>' in html and 'another' in html
  assert '25.0 %' in html and '75.0 %' not in html
  assert 'Predictions' not in html


def test_an_interrupted_write_leaves_the_old_page(workdir, monkeypatch):
  old = page.write(workdir).read_text()

  def die(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, 'replace', die)
  with pytest.raises(KeyboardInterrupt):
    page.write(workdir, title='new')
  assert (workdir / 'report.html').read_text() == old


def test_only_the_first_process_writes(workdir, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  page.write(workdir)
  assert not (workdir / 'report.html').exists()


def test_scores_that_are_not_finite_are_named():
  rows = scores.table({'test/clean_loss': None, 'test/clean_accuracy': 1}, {})
  assert [row.value for row in rows] == ['100.0 %', 'not finite']


def test_threat_models_in_words():
  assert scores.threat_model(None) == 'clean'
  assert scores.threat_model({'name': 'none'}) == 'clean'
  assert scores.threat_model({'name': 'pgd', 'norm': 'l2', 'eps': 2.0}) == (
    'PGD L2, ε = 2'
  )


def test_autoattack_stands_beside_the_clean_accuracy():
  config = {'evals': {
    'clean': {'name': 'accuracy'},
    'autoattack': {'name': 'autoattack', 'eps': 4 / 255, 'norm': 'Linf'},
    'quick': {'name': 'autoattack', 'eps': 0.5, 'norm': 'l2',
              'version': 'aa-2'},
  }}  # fmt: skip
  found = {
    'test/clean_accuracy': 0.9, 'test/standard_linf_accuracy': 0.5,
    'test/standard_linf_apgd-ce_accuracy': 0.6,
    'test/standard_linf_examples': 48, 'test/aa-2_l2_accuracy': 0.7,
  }  # fmt: skip
  rows = scores.table(found, config)
  assert [(row.threat, row.name, row.value, row.images) for row in rows] == [
    ('clean', 'Top-1 accuracy', '90.0 %', ''),
    ('AutoAttack L∞, ε = 4/255, standard', 'Top-1 accuracy', '50.0 %', '48'),
    ('AutoAttack L∞, ε = 4/255, standard',
     'Top-1 accuracy after APGD-CE', '60.0 %', '48'),
    ('AutoAttack L2, ε = 0.5, aa-2, an upper bound', 'Top-1 accuracy',
     '70.0 %', ''),
  ]  # fmt: skip
  assert [row.value for row in scores.headlines(rows)] == [
    '90.0 %', '50.0 %', '70.0 %'
  ]  # fmt: skip


def test_curves_skip_gaps_and_values_that_are_not_finite():
  rows = [
    {'step': 1, 'time': 0.0, 'train/loss': 1.0},
    {'step': 2, 'time': 0.0, 'train/loss': float('nan'), 'validation/loss': 3},
  ]
  assert [c.title for c in curves.draw(rows)] == [
    'Training loss',
    'Evaluation loss',
  ]
  assert curves.draw([]) == []


def test_curves_of_speed_come_last():
  perf = {f'perf/step_seconds_p{q}': 0.1 for q in (50, 90, 99)}
  perf |= {'perf/images_per_second': 9.0, 'perf/compilations': 4}
  rows = [{'step': 1, 'train/loss': 1.0} | perf]
  assert [c.title for c in curves.draw(rows)] == [
    'Training loss',
    'Images per second',
    'Seconds of a step',
  ]


def test_overlay_paints_parts_in_the_colours_of_the_legend(labels):
  black = np.zeros((8, 8, 3), np.uint8)
  painted = pictures.overlay(black, np.array([[0, 1], [2, 3]]), labels)

  def expected(local_index):
    code = bytes.fromhex(pictures.colour(local_index)[1:])
    return 0.65 * np.array(list(code)) + 0.35 * 110

  np.testing.assert_allclose(painted[2, 6], expected(1), atol=1)
  np.testing.assert_allclose(painted[6, 2], expected(2), atol=1)
  np.testing.assert_allclose(painted[6, 6], expected(1), atol=1)
  assert (painted[4] == 255).all()  # A line between the parts.


def test_colours_differ():
  assert len({pictures.colour(i) for i in range(1, 31)}) == 30


def test_samples_without_masks_or_parts(labels):
  one = make_samples()[0]
  bare = samples.Sample(
    image=one.image,
    true=one.true * 0,
    predicted=None,
    label=0,
    predicted_class=0,
    masked=False,
  )
  (card,) = pictures.cards([bare], labels)
  assert card.correct and not (card.true or card.predicted or card.agreement)


def test_samples_at_every_pixel_without_a_class(workdir):
  one = make_samples()[0]
  fine = np.zeros((32, 32), np.int32)
  fine[:8] = 1
  sample = dataclasses.replace(
    one, true=fine, predicted=fine * 0, predicted_class=None
  )
  html = page.write(workdir, samples=[sample]).read_text()
  assert 'predicted parts (0 %)' in html
  assert 'class="badge' not in html


def test_grids_and_priors_are_rows_with_a_note(workdir):
  html = page.write(workdir).read_text()
  assert '8-pixel' not in html and 'ocation prior' not in html
  more = {
    'test/part_miou_known_grid': 0.3,
    'test/part_miou_known_prior': 0.125,
    'test/part_miou_known_prior_low': 0.12,
    'test/part_miou_known_prior_high': 0.13,
    'test/part_miou_known_grid_prior': 0.1,
  }
  html = page.write(workdir, scores=SCORES | more).read_text()
  for text in (
    'Part mIoU, class known (location prior)',
    '12.0 % – 13.0 %',
    'Part mIoU, class known, 8-pixel grid (location prior)',
    '“8-pixel grid” counts',
    '“Location prior” predicts',
  ):
    assert text in html, text
