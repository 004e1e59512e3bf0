"""Filters against a look at each image."""

import itertools

import numpy as np
import pytest

from pinpp_jax.data.release import concepts
from pinpp_jax.errors import UserError
from pinpp_jax.viewer import page_json, query
from pinpp_jax.viewer.query import Query
from pinpp_jax.viewer.recorded import RecordedCatalogue


@pytest.fixture(scope='module')
def catalogue(labelled):
  found = RecordedCatalogue(labelled.folder, labelled.truth)
  found.read_details(wait=True)
  return found


def places(catalogue, asked):
  found = query.select(
    catalogue.rows, asked, catalogue.labels, catalogue.splits, catalogue.done
  )
  return found.tolist()


def fits(catalogue, i, asked):
  """The same, told from the image itself."""
  table, rows = catalogue.labels, catalogue.rows
  wnid = table.wnids[rows.label[i]]
  seen = catalogue.picture(i)
  mask = seen.true if seen.predicted is None else seen.predicted
  mask = np.zeros((1, 1), np.uint8) if mask is None else mask
  visible = [p for p in table.of_class(wnid) if (mask == p.local_index).any()]
  split = page_json.row(catalogue, i)['split']
  ranged = asked.low > 0 or asked.high < 1
  return all(
    (
      not asked.wnid or wnid == asked.wnid,
      not asked.part or asked.part in [p.global_id for p in visible],
      not asked.concept
      or asked.concept in [concepts.of_part(p) for p in visible],
      not asked.split or split == asked.split,
      not asked.discarded
      or bool(rows.discarded[i]) == (asked.discarded == 'yes'),
      not ranged or asked.low <= seen.confidence <= asked.high,
      asked.find in rows.names[i]
      or asked.find in table.object_names[rows.label[i]],
    )
  )


ASKED = [
  Query(),
  Query(wnid='n99000001'),
  Query(part=2),
  Query(concept='wheel'),
  Query(concept='wheel', split='test'),
  Query(split='validation', wnid='n99000010'),
  Query(discarded='no'),
  Query(find='bicycle'),
  Query(find='_7'),
  Query(part=2, wnid='n99000010'),
]


@pytest.mark.parametrize('asked', ASKED)
def test_a_release_is_filtered(released, asked):
  some = range(0, len(released.rows), 7)
  found = set(places(released, asked))
  assert [i in found for i in some] == [fits(released, i, asked) for i in some]


@pytest.mark.parametrize(('low', 'high'), [(0.25, 0.5), (0, 0.31), (0.88, 1)])
def test_labels_are_filtered_by_confidence(catalogue, low, high):
  asked = Query(low=low, high=high, source='pseudo')
  expected = [
    i for i in range(len(catalogue.rows)) if fits(catalogue, i, asked)
  ]
  assert places(catalogue, asked) == expected != []


def test_the_least_comes_first(catalogue):
  for order in ('confidence', 'agreement'):
    column = getattr(catalogue.rows, order)[
      places(catalogue, Query(order=order))
    ]
    known = column[~np.isnan(column)]
    assert len(column) == len(catalogue.rows)
    assert (np.diff(known) >= 0).all()
    assert np.isnan(column[len(known) :]).all()


def test_pages_hold_every_image_once(released):
  pages = [
    page_json.listing(released, Query(page=page, count=100))
    for page in itertools.takewhile(
      lambda page: (page - 1) * 100 < len(released.rows), itertools.count(1)
    )
  ]
  ids = [row['id'] for page in pages for row in page['rows']]
  assert ids == list(range(len(released.rows)))
  beyond = page_json.listing(released, Query(page=10**6))
  assert beyond['rows'] == [] and beyond['total'] == len(released.rows)


def test_statistics_count_the_images_that_fit(catalogue):
  wnid = catalogue.labels.wnids[catalogue.rows.label[0]]
  found = page_json.statistics(catalogue, Query(wnid=wnid))
  of_class = [
    catalogue.picture(i).predicted for i in places(catalogue, Query(wnid=wnid))
  ]
  assert found['counted'] == len(of_class)
  for line, part in zip(
    found['rows'], catalogue.labels.of_class(wnid), strict=True
  ):
    shares = [(mask == part.local_index).mean() for mask in of_class]
    shares = [share for share in shares if share]
    assert line['images'] == len(shares)
    if shares:
      assert line['median'] == pytest.approx(np.median(shares), abs=1e-4)
  every = page_json.statistics(catalogue, Query())
  assert every['counted'] == len(catalogue.rows)
  for line in every['rows']:
    asked = Query(concept=line['concept'])
    assert line['images'] == len(places(catalogue, asked))


@pytest.mark.parametrize(
  'fields',
  [
    {'nonsense': ['1']},
    {'wnid': ['n99000001']},
    {'class': ['n00000000']},
    {'class': ['n99000001', 'n99000002']},
    {'part': ['-1']},
    {'part': ['two']},
    {'part': ['٣']},
    {'part': ['999999']},
    {'page': ['0']},
    {'page': ['1e3']},
    {'count': ['100000']},
    {'low': ['nan']},
    {'high': ['inf']},
    {'high': ['2']},
    {'split': ['trian']},
    {'source': ['me']},
    {'order': ['areas']},
    {'discarded': ['maybe']},
    {'find': ['a\nb']},
    {'find': ['x' * 300]},
  ],
)
def test_odd_questions_are_refused(released, fields):
  with pytest.raises(UserError):
    query.parse(fields, released.labels, released.splits)
