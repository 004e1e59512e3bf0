"""Entries for the leaderboard: their form, and what is refused."""

import dataclasses

import pytest

from pinpp_jax.errors import UserError
from pinpp_jax.evals.autoattack import robustbench

ENTRY = robustbench.Entry(
  title='Some Parts: They Help',
  authors='Jane van Doe-Roe, Max Muster',
  year='2026',
  link='https://example.org/1',
  venue='Somewhere 2026',
  architecture='ResNet-50',
)
MEASURED = dict(
  version='standard',
  norm='linf',
  eps=4 / 255,
  images='rb5k',
  examples=5000,
  clean_accuracy=3128 / 5000,
  robust_accuracy=1461 / 5000,
)


def test_the_form_is_the_boards():
  assert robustbench.model_info(ENTRY, **MEASURED) == {
    'link': 'https://example.org/1',
    'name': 'Some Parts: They Help',
    'authors': 'Jane van Doe-Roe, Max Muster',
    'additional_data': False,
    'number_forward_passes': 1,
    'dataset': 'imagenet',
    'venue': 'Somewhere 2026',
    'architecture': 'ResNet-50',
    'eps': '4/255',
    'clean_acc': '62.56',
    'reported': '29.22',
    'autoattack_acc': '29.22',
    'unreliable': False,
  }


def test_what_a_person_says_is_there():
  entry = dataclasses.replace(
    ENTRY, reported='30.00', external='28.10', footnote='An ensemble.'
  )
  found = robustbench.model_info(entry, **MEASURED)
  assert (found['reported'], found['autoattack_acc']) == ('30.00', '29.22')
  assert (found['external'], found['footnote']) == ('28.10', 'An ensemble.')


@pytest.mark.parametrize(
  ('fields', 'name'),
  [
    ({}, 'DoeRoe2026Some.json'),
    ({'short': 'ConvNeXt-B'}, 'DoeRoe2026Some_ConvNeXt-B.json'),
    ({'title': 'Parts: why'}, 'DoeRoe2026Parts.json'),
    ({'authors': 'Max Muster and Jane Doe'}, 'Muster2026Some.json'),
  ],
)
def test_the_files_name(fields, name):
  assert dataclasses.replace(ENTRY, **fields).file_name == name


@pytest.mark.parametrize(
  ('fields', 'word'),
  [
    ({'version': 'aa-2'}, "version 'aa-2' instead of 'standard'"),
    ({'norm': 'l2', 'eps': 2.0}, "norm 'l2', for which there is no"),
    ({'eps': 8 / 255}, 'eps 0.0313725 instead of 4/255'),
    ({'examples': 1000}, "1000 images of 'rb5k' instead of the 5000"),
    ({'images': 'pin10k', 'examples': 10000}, "10000 images of 'pin10k'"),
    ({'robust_accuracy': 0.9}, 'the second is at most the first'),
  ],
)
def test_other_evaluations_are_refused(fields, word):
  with pytest.raises(UserError, match=word):
    robustbench.model_info(ENTRY, **MEASURED | fields)


@pytest.mark.parametrize(
  ('fields', 'word'),
  [
    ({'link': ' ', 'venue': ''}, 'lacks link, venue'),
    ({'year': '26'}, "year='26'"),
    ({'reported': '0.48'}, None),
    ({'reported': '48'}, "reported='48' is not in percent"),
    ({'external': '48.1 %'}, "external='48.1 %'"),
  ],
)
def test_incomplete_entries_are_refused(fields, word):
  if word is None:  # Half a percent is one.
    dataclasses.replace(ENTRY, **fields)
    return
  with pytest.raises(UserError, match=word):
    dataclasses.replace(ENTRY, **fields)
