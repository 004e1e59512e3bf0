"""Mistakes in the fields that a command line sets name the field."""

import pathlib

import pytest

from pinpp_jax.errors import UserError
from pinpp_jax.runs import command_line

RECIPE = str(
  pathlib.Path(__file__).parents[1] / 'configs' / 'mpm_clean.py:smoke'
)


@pytest.mark.parametrize(
  ('argument', 'said'),
  [
    ('--config.evals.pgd.steps=3', "evals has no field 'pgd'; it has clean"),
    ('--config.optim.lr=0.1', "optim has no field 'lr'.*learning_rate"),
    ('--config.nope.x=1', "the recipe has no field 'nope'.*optim"),
    ('--config.data.name.x=1', 'name is a value, not a section'),
    ('--config.data.scale=(0.1,)', 'data.scale=.*two shares'),
    ('--config.data.scale=(0.9, 0.1)', 'data.scale=.*smaller first'),
    ('--config.data.scale=(0.1, "a")', 'data.scale=.*two shares'),
    ('--config.data.scale=((', 'data.scale=.*two shares'),
    ('--config.profile=(20, 10)', 'profile=.*a first and a last step'),
    ('--config.data.name=None', 'data.name=None: the field is text'),
  ],
)
def test_a_mistake_names_the_field_and_its_neighbours(argument, said):
  with pytest.raises(UserError, match=said) as error:
    command_line.check(['main', f'--config={RECIPE}', argument])
  assert '\n' not in str(error.value)


def test_what_is_right_passes():
  command_line.check(
    [
      'main',
      f'--config={RECIPE}',
      '--config.data.scale=(0.3, 1)',
      '--config.optim.learning_rate=0.1',
      '--config.init.key=None',
      '--config.profile=()',
      '--config.data.name',
      'pinpp',
    ]
  )
  command_line.check(['main', '--config=absent.py', '--config.x=1'])
