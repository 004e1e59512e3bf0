"""The attacks of each version of AutoAttack, and their options.

Croce & Hein, 2020, arXiv:2003.01690; constants of github.com/fra31/auto-attack.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import types
from typing import Any

from pinpp_jax import attacks as attacks_lib
from pinpp_jax.attacks.apgd import APGD
from pinpp_jax.attacks.fab import FAB
from pinpp_jax.attacks.square import Square
from pinpp_jax.errors import UserError

Attack = APGD | FAB | Square

# Keys depend on an attack's position in this table: add new ones at the end.
OPTIONS: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
  {
    'apgd-ce': dict(name='apgd', loss='ce'),
    'apgd-dlr': dict(name='apgd', loss='dlr'),
    'apgd-t': dict(name='apgd', loss='targeted_dlr', target_classes=9),
    'fab': dict(name='fab', targeted=False),
    'fab-t': dict(name='fab', targeted=True, target_classes=9),
    'square': dict(name='square', queries=5000),
  }
)

_STANDARD = {'apgd-ce': {}, 'apgd-t': {}, 'fab-t': {}, 'square': {}}
_STANDARD_L1 = _STANDARD | {
  'apgd-ce': dict(restarts=5),
  'apgd-t': dict(target_classes=5),
}
_PLUS = {
  'apgd-ce': dict(restarts=5),
  'apgd-dlr': dict(restarts=5),
  'fab': dict(restarts=5),
  'square': {},
  'apgd-t': {},
  'fab-t': {},
}

VERSIONS: Mapping[str, Mapping[str, Any]] = types.MappingProxyType(
  {
    'standard': _STANDARD,
    'plus': _PLUS,
    # For networks that are random: gradients averaged over 20 passes.
    'rand': {'apgd-ce': dict(eot=20), 'apgd-dlr': dict(eot=20)},
    # A fifth of the standard version's cost; its number is an upper bound.
    'aa-2': {'apgd-ce': {}, 'apgd-t': {}},
  }
)
CUSTOM = 'custom'

# The targeted loss divides by a difference of four logits, the other by three.
_LEAST_CLASSES = {'apgd-t': 4, 'apgd-dlr': 3}


def plan(
  version: str,
  norm: str,
  eps: float,
  classes: int,
  attacks: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
  loop: str = 'auto',
) -> dict[str, Attack]:
  """Returns a version's attacks by name, in the order they run.

  With fewer than ten classes there are fewer targets than nine.

  Args:
    version: One of VERSIONS or 'custom'.
    norm: 'linf', 'l2' or 'l1'.
    eps: Radius of the ball.
    classes: Number of logits.
    attacks: Only for 'custom': names of OPTIONS, or options by name. One
      restart by default (the authors' constructor takes five).
    loop: Of each attack; see `attacks.loops.run`.

  Raises:
    UserError: For an unknown version or attack, or one that needs more classes
      than there are.
  """
  chosen = _chosen(version, norm, attacks)
  made: dict[str, Attack] = {}
  for name, changes in chosen.items():
    if classes < _LEAST_CLASSES.get(name, 2):
      raise UserError(
        f'{name} needs at least {_LEAST_CLASSES.get(name, 2)} classes and the'
        f' network has {classes}; use version={CUSTOM!r} with attacks'
        " ('apgd-ce', 'fab-t', 'square')."
      )
    options = {**OPTIONS[name], **changes}
    if 'target_classes' in options:
      options['target_classes'] = min(options['target_classes'], classes - 1)
    target = attacks_lib.ATTACKS[options.pop('name')]
    _check_options(name, target, options)
    made[name] = target(eps=eps, norm=norm, loop=loop, **options)
  return made


def _chosen(version, norm, attacks) -> Mapping[str, Mapping[str, Any]]:
  if version != CUSTOM:
    if attacks is not None:
      raise UserError(f'attacks= is only for version={CUSTOM!r}; leave it out.')
    if version not in VERSIONS:
      known = [*VERSIONS, CUSTOM]
      raise UserError(f'version={version!r} is not one of {known}.')
    if norm == 'l1' and version == 'standard':
      return _STANDARD_L1
    return VERSIONS[version]
  if not attacks:
    raise UserError(
      f'version={CUSTOM!r} needs attacks=, one or more of {[*OPTIONS]}.'
    )
  if not isinstance(attacks, Mapping):
    attacks = {name: {} for name in attacks}
  unknown = sorted(set(attacks) - set(OPTIONS))
  if unknown:
    raise UserError(f'attacks {unknown} are not among {[*OPTIONS]}.')
  return attacks


def _check_options(name, target, options) -> None:
  known = {field.name for field in dataclasses.fields(target)}
  unknown = sorted(set(options) - known)
  if unknown:
    raise UserError(
      f'{name} has no option {unknown}; its options are {sorted(known)}.'
    )


def takes_keys(version: str, attacks: Any = None) -> bool:
  """Returns whether the network is random and called with keys."""
  if version == CUSTOM and isinstance(attacks, Mapping):
    return any(
      'eot' in options and options['eot'] > 1 for options in attacks.values()
    )
  return version == 'rand'


def calls(attack: Attack) -> tuple[int, int]:
  """Returns the maximum forward and backward passes of an image per round."""
  if isinstance(attack, APGD):
    ranking = int(attack.loss == 'targeted_dlr')
    return attack.length * attack.eot + ranking, attack.length * attack.eot
  if isinstance(attack, FAB):
    return 2 * attack.steps + 1, attack.steps
  return attack.queries + 1, 0
