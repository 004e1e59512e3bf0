"""What the viewer knows of images, against the files themselves."""

import io
import json
import re

import numpy as np
from PIL import Image
import pytest

from pinpp_jax.data import masks, views
from pinpp_jax.data.read.sources import Recorded
from pinpp_jax.data.release import splits
from pinpp_jax.errors import UserError
from pinpp_jax.viewer import columns as rows_lib
from pinpp_jax.viewer import (
  open_catalogue,
  outlines,
  page_json,
  query,
  thumbnails,
)
from pinpp_jax.viewer.catalogue import Picture
from pinpp_jax.viewer.query import Query
from pinpp_jax.viewer.recorded import RecordedCatalogue
from pinpp_jax.viewer.sampled import SampledCatalogue


@pytest.fixture
def reads(monkeypatch):
  """The records that were read, in order."""
  found = []
  original = Recorded._record

  def record(self, index):
    found.append((self._split, index))
    return original(self, index)

  monkeypatch.setattr(Recorded, '_record', record)
  return found


def test_rows_are_the_records(built_set, version):
  split = splits.load(version)
  names = [name for part in splits.NAMES for name in split[part]]
  assert list(built_set.rows.names) == names
  for i in (0, 5, len(names) - 1):
    source, place = built_set._locate(i)
    assert source.file_name(place) == names[i]
    assert source[place]['label'] == built_set.rows.label[i]
    assert names[i] in split[built_set.splits[built_set.rows.split[i]]]


def test_a_page_reads_the_records_of_its_images_alone(version, reads):
  catalogue = RecordedCatalogue(version)
  # The two ends of each split, to see that splits.json has their order.
  assert len(reads) <= 2 * len(catalogue.splits)
  reads.clear()
  page = page_json.listing(catalogue, Query(page=3, count=10))
  page_json.about(catalogue)
  assert len(reads) <= 2
  assert page['total'] == page['done'] == len(catalogue.rows) > 400
  for row in page['rows']:
    catalogue.picture(row['id'])
  assert {index for _, index in reads} <= {0, *range(20, 30)}


def test_details_are_read_once_and_kept(version, reads, cache):
  first = RecordedCatalogue(version)
  assert first.done == 0
  first.read_details(wait=True)
  assert first.done == len(first.rows)
  reads.clear()
  second = RecordedCatalogue(version)
  second.read_details(wait=True)
  assert len(reads) <= 2 * len(second.splits)
  for name in rows_lib.DETAILS:
    np.testing.assert_array_equal(
      getattr(first.rows, name), getattr(second.rows, name)
    )
  kept = list((cache / 'pinpp_jax' / 'view').iterdir())
  assert [path.suffix for path in kept if first._key() in path.name] == ['.npz']


def test_a_damaged_cache_is_made_again(version, cache, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  first = RecordedCatalogue(version)
  first.read_details(wait=True)
  (path,) = (tmp_path / 'pinpp_jax' / 'view').iterdir()
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  second = RecordedCatalogue(version)
  second.read_details(wait=True)
  np.testing.assert_array_equal(second.rows.areas, first.rows.areas)
  assert path.read_bytes() == whole


def test_areas_are_shares_of_the_masks(built_set):
  built_set.read_details(wait=True)
  for i in range(0, len(built_set.rows), 37):
    mask = built_set.picture(i).true
    for part in range(1, built_set.labels.max_parts + 1):
      expected = np.float32((mask == part).mean())
      assert built_set.rows.areas[i, part - 1] == expected


def test_a_release_shows_what_its_build_shows(built_set, released):
  assert released.labels == built_set.labels
  where = {name: i for i, name in enumerate(released.rows.names)}
  for i in range(0, len(built_set.rows), 11):
    j = where[built_set.rows.names[i]]
    ours, theirs = built_set.picture(i), released.picture(j)
    assert ours.image == theirs.image
    np.testing.assert_array_equal(ours.true, theirs.true)
    assert (
      built_set.splits[built_set.rows.split[i]]
      == released.splits[released.rows.split[j]]
    )
    ours, theirs = built_set.regions(i), released.regions(j)
    assert [(r.part, r.path) for r in ours] == [
      (r.part, r.path) for r in theirs
    ]


def test_discarded_images_are_shown_without_parts(released, release):
  listed = json.loads((release / 'discarded_data.json').read_text())
  assert listed
  found = query.select(
    released.rows,
    Query(discarded='yes'),
    released.labels,
    released.splits,
    released.done,
  )
  names = {released.rows.names[i] for i in found}
  assert names == released._release.discarded
  assert len(names) == len(listed)
  for i in found:
    assert released.picture(int(i)).true is None
    assert released.regions(int(i)) == []
    assert page_json.row(released, int(i))['split'] == ''


def test_pseudo_labels_beside_the_truth(labelled):
  catalogue = open_catalogue.open_catalogue(
    str(labelled.folder), truth=str(labelled.truth)
  )
  catalogue.read_details(wait=True)
  assert {'confidence', 'agreement'} <= set(
    page_json.about(catalogue)['fields']
  )
  for i, name in enumerate(catalogue.rows.names):
    seen = catalogue.picture(i)
    path = (labelled.truth / name).with_suffix('.png')
    assert (seen.true is None) == (not path.is_file())
    expected = np.nan
    if path.is_file():
      true = masks.decode(path.read_bytes())
      np.testing.assert_array_equal(seen.true, true)
      parts = set(np.unique(true)) | set(np.unique(seen.predicted))
      expected = np.mean(
        [
          ((true == p) & (seen.predicted == p)).sum()
          / ((true == p) | (seen.predicted == p)).sum()
          for p in parts - {0}
        ]
      )
    np.testing.assert_allclose(catalogue.rows.agreement[i], expected, rtol=1e-6)
    assert catalogue.rows.confidence[i] == np.float32(seen.confidence)
  assert {rows_lib.SOURCES[i] for i in catalogue.rows.source} == {'pseudo'}


def test_samples_of_a_run(run_folder, built_set):
  catalogue = open_catalogue.open_catalogue(str(run_folder))
  assert isinstance(catalogue, SampledCatalogue)
  for i in range(len(catalogue.rows)):
    seen, given = catalogue.picture(i), built_set.picture(i)
    assert seen.predicted.shape == (12, 12)
    assert (seen.true is None) == (i == 5)
    if i != 5:
      np.testing.assert_array_equal(seen.true, given.true[4::8, 4::8])
    detail = page_json.detail(catalogue, i)
    assert detail['grids']['predicted'] == [12, 12]
    assert (detail['guess'] == detail['label']) == bool(i % 3)
    assert ('differs' in detail['layers']) == (i != 5)


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (lambda f: None, 'not a data set'),
    (lambda f: (f / 'config.json').write_text('{"run": "train"}'), 'labels'),
    (
      lambda f: (f / 'config.json').write_text(
        '{"run": "label", "output": "", "truth": "", "data": {"data_dir": ""}}'
      ),
      'has not finished',
    ),
  ],
)
def test_nothing_to_look_at_is_one_line(tmp_path, make, words):
  make(tmp_path)
  with pytest.raises(UserError, match=words):
    open_catalogue.open_catalogue(str(tmp_path), data_dir=str(tmp_path))


def filled(path: str, shape: tuple[int, int]) -> np.ndarray:
  """Fills a path by SVG's rule: upright edges to the left wind round a pixel.

  The last line of a loop is not written: 'z' draws it.
  """
  winding = np.zeros(shape, int)
  x = y = start = 0

  def upright(to):
    low, high = sorted((y, to))
    winding[low:high, x:] += np.sign(to - y)

  for move, a, b in re.findall(r'([Mhvz])(-?\d*)(?: (\d+))?', path):
    if move == 'M':
      x, y = int(a), int(b)
      start = y
    elif move == 'h':
      x += int(a)
    elif move == 'v':
      upright(y + int(a))
      y += int(a)
    else:
      upright(start)
  return winding != 0


def test_paths_cover_exactly_the_pixels():
  rng = np.random.default_rng(0)
  for _ in range(20):
    mask = rng.integers(0, 4, (9, 13)).astype(np.uint8)
    for part, path in outlines.of_mask(mask).items():
      np.testing.assert_array_equal(filled(path, mask.shape), mask == part)
  assert outlines.of_pixels(np.zeros((3, 3), bool)) == ''


def rgba(png: bytes) -> np.ndarray:
  return np.array(Image.open(io.BytesIO(png)).convert('RGBA'))


def test_small_pictures_show_the_parts_asked_for(built_set):
  picture = built_set.picture(0)
  every = rgba(thumbnails.parts(picture))
  some = rgba(thumbnails.parts(picture, [1]))
  assert every.shape == some.shape == (96, 96, 4)
  assert ((every[..., 3] > 0) >= (picture.true > 0)).all()
  assert (some[..., 3] > 0).sum() < (every[..., 3] > 0).sum()
  inner = (picture.true == 2) & (some[..., 3] > 0)
  assert inner.sum() < (picture.true == 2).sum() / 2  # The edge of part 1.


def test_an_image_that_cannot_be_decoded_is_named():
  with pytest.raises(UserError, match='n1/n1_1.JPEG'):
    thumbnails.photograph(Picture(image=b'no', shape=(2, 2)), 'n1/n1_1.JPEG')
  grey = thumbnails.photograph(Picture(image=None, shape=(640, 320)), '')
  assert views.decode(grey, '').size == (120, 240)
