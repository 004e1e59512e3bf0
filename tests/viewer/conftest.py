"""Catalogues over the drawn data: built, released, labelled, sampled."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from pinpp_jax.data import masks, views
from pinpp_jax.data.read.pseudo import Draft
from pinpp_jax.data.read.sources import Recorded
from pinpp_jax.evals import samples
from pinpp_jax.viewer.recorded import RecordedCatalogue
from pinpp_jax.viewer.released import ReleasedCatalogue


@pytest.fixture(autouse=True, scope='session')
def cache(tmp_path_factory):
  """No test reads what another run has kept."""
  folder = tmp_path_factory.mktemp('cache')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(folder))
    yield folder


@pytest.fixture(scope='session')
def version(mini_data):
  return mini_data / 'pinpp_mini' / '1.0.0'


@pytest.fixture(scope='session')
def release(mini_data):
  return mini_data / 'downloads' / 'manual' / 'pinpp_mini'


@pytest.fixture(scope='session')
def built_set(version):
  return RecordedCatalogue(version)


@pytest.fixture(scope='session')
def released(release):
  return ReleasedCatalogue(release)


def flawed(mask: np.ndarray, seed: int) -> np.ndarray:
  """Returns a mask as a network might predict it: moved by a few pixels."""
  return np.roll(mask, (seed % 5, -(seed % 3)), (0, 1))


@dataclasses.dataclass(frozen=True)
class Labelled:
  folder: pathlib.Path
  truth: pathlib.Path


@pytest.fixture(scope='session')
def labelled(mini_data, tmp_path_factory) -> Labelled:
  """A set of pseudo labels and the true masks of most of its images."""
  source = Recorded(dataset='pinpp_mini', data_dir=str(mini_data), split='test')
  folder = tmp_path_factory.mktemp('labelled')
  output, truth = folder / 'pinpp_pseudo' / '1.0.0', folder / 'truth'
  draft = Draft(output=output, labels=source.labels, shards=1)
  draft.begin({'made': 'for a test'})
  records = []
  for i in range(20):
    example = dict(source[i])
    mask = masks.decode(example['part_mask'])
    parts = len(source.labels.of_class(example['wnid']))
    if i % 5:
      path = (truth / example['file_name']).with_suffix('.png')
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(example['part_mask'])
    records.append(
      example
      | {
        'part_mask': masks.encode(flawed(mask, i)),
        'source': 'pseudo',
        'annotations': '[]',
        'confidence': (7 * i % 20) / 20,
        'part_confidence': np.full(parts, 0.5, np.float32),
      }
    )
  draft.write(0, records)
  draft.publish()
  return Labelled(folder=output, truth=truth)


@pytest.fixture(scope='session')
def run_folder(built_set, tmp_path_factory):
  """A run's folder with samples: 12 x 12 cells over 96 x 96 pixels."""
  folder = tmp_path_factory.mktemp('runs') / 'mpm-mini'
  folder.mkdir()
  labels = built_set.labels
  found = []
  for i in range(8):
    picture, label = built_set.picture(i), int(built_set.rows.label[i])
    ids = labels.candidates[label]
    pixels = np.array(views.decode(picture.image, 'test'))
    found.append(
      samples.Sample(
        image=pixels,
        true=ids[picture.true[4::8, 4::8]],
        predicted=ids[flawed(picture.true, i)[4::8, 4::8]],
        label=label,
        predicted_class=label if i % 3 else (label + 1) % 12,
        masked=i != 5,
      )
    )
  samples.save(folder / 'samples.npz', found)
  labels.save(folder / 'labels.json')
  (folder / 'config.json').write_text(json.dumps({'run': 'train'}))
  return folder
