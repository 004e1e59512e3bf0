"""The command `pinpp concepts`, on maps whose scores are known."""

import csv
import json

import numpy as np
import pytest

from pinpp_jax import tools
from pinpp_jax.data.read.annotated import DataSet
from pinpp_jax.data.release import concepts, painting

NAMES = ('wheel', 'eye', 'window')


@pytest.fixture(scope='module')
def images(mini_data):
  data = DataSet(['pinpp_mini'], str(mini_data))
  return data.labels, list(data.images(['test'])['test'])


def truth(image, table, name):
  """Returns the drawn pixels of a concept in an image."""
  parts = table.of_class(image.wnid)
  found = np.zeros(image.mask.shape, bool)
  for region in image.regions:
    if concepts.of_part(parts[region.part - 1]) == name:
      found |= painting.rasterise(region, *image.mask.shape)
  return found


def save(folder, images, table, maps_of, names=NAMES):
  folder.mkdir()
  (folder / 'concepts.txt').write_text('\n'.join(names) + '\n')
  for image in images:
    path = (folder / image.file_name).with_suffix('.npy')
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.stack([maps_of(image, name) for name in names]))
  return folder


def run(folder, mini_data, *words):
  rest = ['--dataset=pinpp_mini', f'--data_dir={mini_data}', *words]
  return tools.main(['concepts', str(folder), *rest])


def test_the_names_exist(images):
  table, _ = images
  assert set(NAMES) <= {one.name for one in concepts.of_table(table)}


def test_true_masks_score_one(images, mini_data, tmp_path, capsys):
  table, some = images
  true = lambda image, name: truth(image, table, name).astype(np.float32)
  folder = save(tmp_path / 'maps', some, table, true)
  files = tmp_path / 'scores.json', tmp_path / 'scores.csv'
  words = [f'--json={files[0]}', f'--csv={files[1]}', '--thresholds=0.5,1']
  assert run(folder, mini_data, *words) == 0
  assert 'IoU@0.5' in capsys.readouterr().out
  facts = json.loads(files[0].read_text())
  with open(files[1]) as file:
    rows = list(csv.DictReader(file))
  assert [row['concept'] for row in rows] == [*sorted(NAMES), 'mean of 3']
  for one in facts['scores']:
    for name in ('pointing', 'mass', 'pixel_ap', 'presence_ap'):
      assert one[name] == 1
    assert one['iou'] == [1, 1]
  for one in facts['scores'][:-1]:
    count = sum(truth(image, table, one['concept']).any() for image in some)
    assert one['images'] == count > 0
    assert one['absent'] == len(some) - count


def test_blind_maps_score_as_chance(images, mini_data, tmp_path):
  table, some = images
  folder = save(tmp_path / 'maps', some, table, lambda *_: np.ones((7, 7)))
  assert run(folder, mini_data, f'--json={tmp_path / "s"}') == 0
  for one in json.loads((tmp_path / 's').read_text())['scores'][:-1]:
    covered = [truth(image, table, one['concept']).mean() for image in some]
    expected = np.mean([share for share in covered if share])
    for name in ('pointing', 'mass', 'pixel_ap'):
      assert one[name] == pytest.approx(expected)
    assert one['presence_ap'] == pytest.approx(np.mean(np.array(covered) > 0))
    assert one['iou'] == [0, 0, 0]


def test_mistakes_end_in_one_line(images, mini_data, tmp_path, capsys):
  table, some = images
  zeros = lambda *_: np.zeros((2, 2))

  def error(folder):
    assert run(folder, mini_data) == 2
    said = capsys.readouterr().err
    assert said.startswith('pinpp concepts: ') and said.count('\n') == 1
    return said

  assert 'concepts.txt cannot be read' in error(tmp_path / 'none')
  for number, (names, message) in enumerate(
    [
      (('wheel', 'propeller'), "'propeller' is no concept"),
      (('wheel', 'wheels'), 'one of them twice'),
    ]
  ):
    folder = save(tmp_path / f'bad{number}', some[:1], table, zeros, names)
    assert message in error(folder)
  folder = save(tmp_path / 'few', some[:3], table, zeros)
  assert 'cannot be read as .npy' in error(folder)
  assert run(folder, mini_data, '--skip_missing') == 0
  assert f'{len(some) - 3} images have no' in capsys.readouterr().out
  path = (folder / some[0].file_name).with_suffix('.npy')
  np.save(path, np.zeros((2, 5, 5)))
  assert 'need numbers of shape (3, height, width)' in error(folder)
  np.save(path, np.full((3, 5, 5), np.inf))
  assert f'{path}: ' in error(folder)
