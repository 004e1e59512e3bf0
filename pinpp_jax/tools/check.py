"""Checks a release folder with every guard of the builder, and goes on.

  pinpp check RELEASE --html=check.html --json=check.json

A build stops at the first broken thing; this lists all of them, by kind and by
class, with pictures. Exit status: 0 if a build would refuse nothing, 1 if it
would, 2 if there is nothing to check.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import pathlib
import sys
from typing import Any

import tqdm

from pinpp_jax.data import files, labels
from pinpp_jax.data.build import check_release
from pinpp_jax.data.imagenet import layouts
from pinpp_jax.data.imagenet.layouts import ImageNetCopy
from pinpp_jax.data.labels import LabelTable, Part
from pinpp_jax.data.release import splits
from pinpp_jax.data.release.finding_kinds import GUARDS
from pinpp_jax.data.release.findings import (
  COUNTED,
  REFUSED,
  SKIPPED,
  WARNED,
  Finding,
  Findings,
  Place,
)
from pinpp_jax.data.release.reader import Release
from pinpp_jax.errors import UserError
from pinpp_jax.report import template
from pinpp_jax.report.evidence import Evidence
from pinpp_jax.tools import terminal

PICTURES = 3  # Of each kind, from different classes as far as there are any.
_SHOWN = 3  # Examples of each kind on the terminal.

# weight -> (heading, what it means), the worst first.
WEIGHTS = {
  REFUSED: ('Errors', 'A build refuses the release.'),
  SKIPPED: (
    'Errors that --skip_bad leaves out',
    'A build refuses the release, or with --skip_bad leaves the entry out.',
  ),
  WARNED: ('Warnings', 'Kept, but worth a look.'),
  COUNTED: ('Counted', 'Handled without losing anything.'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
  """All findings of one kind."""

  name: str
  weight: str
  count: int
  classes: Mapping[str, int]
  examples: Sequence[Finding]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
  """What is known of a release.

  `copy` is None where no images were looked at; `images` counts the usable
  annotated ones, by wnid.
  """

  release: Release
  copy: ImageNetCopy | None
  table: LabelTable
  images: Mapping[str, int]
  split_rule: str
  split_hash: str
  kinds: Sequence[Kind]

  @property
  def sound(self) -> bool:
    """Whether a build would refuse nothing."""
    return not any(kind.weight in (REFUSED, SKIPPED) for kind in self.kinds)

  @property
  def numbers(self) -> dict[str, int]:
    """The totals of what can be used."""
    return {
      'classes': self.table.num_classes,
      'parts': self.table.num_parts,
      'images': sum(self.images.values()),
      'masks': sum(part.count for part in self.table.parts),
    }

  def of_weight(self, weight: str) -> list[Kind]:
    """Returns the kinds of one weight, the most frequent first."""
    found = [kind for kind in self.kinds if kind.weight == weight]
    return sorted(found, key=lambda kind: (-kind.count, kind.name))


def check(
  folder: str | pathlib.Path,
  *,
  imagenet_dir: str = '',
  full: bool = False,
  expected: Mapping[str, int] | None = None,
  progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> Checked:
  """Returns everything that is unusual about a release.

  Args:
    folder: in the release's layout.
    imagenet_dir: the images; by default those in the folder, if there are any.
    full: whether it must be the complete release, as one of 1,000 classes must
      in any case.
    expected: totals that it must have, by 'classes', 'images', 'parts' and
      'masks'.
    progress: passes the classes on and shows how far they are.

  Raises:
    UserError: there is no release, or no copy where one was named.
  """
  findings = Findings(collect=True)
  release = Release(folder, findings)
  copy = _copy(release, imagenet_dir)
  full = full or len(release.wnids) == check_release.PUBLISHED['classes']
  if full:
    check_release.known_classes(release.wnids, findings)
    expected = expected or check_release.PUBLISHED
  wnids, objects, names = [], [], []
  parts: list[Part] = []
  masks = 0
  for record, seen in check_release.classes(release, copy, progress, full):
    wnids.append(record.wnid)
    objects.append(record.object_name)
    parts += labels.class_parts(record, len(parts) + 1)
    names.append(tuple(image.file_name for image in record.images))
    masks += len(seen)
  table = LabelTable(
    wnids=tuple(wnids), object_names=tuple(objects), parts=tuple(parts)
  )
  check_release.totals(table, masks, findings, expected)
  split, rule = check_release.split(release, names)
  return Checked(
    release=release,
    copy=copy,
    table=table,
    images={wnid: len(n) for wnid, n in zip(wnids, names, strict=True)},
    split_rule=rule,
    split_hash=splits.hash_of(split),
    kinds=_kinds(findings),
  )


def _copy(release: Release, imagenet_dir: str) -> ImageNetCopy | None:
  """Returns the copy, None if none is there and none was named.

  Raises:
    UserError: a build would not get its images, either.
  """
  try:
    copy = layouts.open_copy(imagenet_dir or release.folder)
    copy.wnids('train')
    return copy
  except layouts.NoCopyError as error:
    if imagenet_dir:
      raise
    place = Place(text=str(release.folder))
    release.findings.warn('images not looked at', place, str(error))
    return None


def _kinds(findings: Findings) -> list[Kind]:
  """Returns the kinds in the order of the guards."""
  return [
    Kind(
      name=name,
      weight=findings.examples[name][0].weight,
      count=sum(findings.per_class[name].values()),
      classes=dict(sorted(findings.per_class[name].items())),
      examples=findings.examples[name],
    )
    for name in GUARDS
    if name in findings.examples
  ]


def as_dict(checked: Checked) -> dict[str, Any]:
  """Returns the report for machines."""
  return {
    'release': str(checked.release.folder),
    'imagenet': None if checked.copy is None else str(checked.copy.path),
    'sound': checked.sound,
    **checked.numbers,
    'label_hash': checked.table.hash,
    'split_rule': checked.split_rule,
    'split_hash': checked.split_hash,
    'kinds': [
      {
        'kind': kind.name,
        'weight': kind.weight,
        'topic': GUARDS[kind.name].topic,
        'meaning': GUARDS[kind.name].meaning,
        'count': kind.count,
        'classes': {w: n for w, n in kind.classes.items() if w},
        'examples': [
          {
            'where': found.place.text,
            'detail': found.detail,
            'wnid': found.place.wnid,
            'image': found.place.image,
            'annotation': found.place.annotation,
          }
          for found in kind.examples
        ],
      }
      for kind in checked.kinds
    ],
  }


def text(checked: Checked) -> str:
  """Returns the report for the terminal."""
  lines = [f'{checked.release.folder}: {_sizes(checked)}', _copy_line(checked)]
  for weight, (heading, meaning) in WEIGHTS.items():
    kinds = checked.of_weight(weight)
    if not kinds:
      continue
    lines += ['', f'{heading} ({meaning[0].lower()}{meaning[1:-1]})']
    for kind in kinds:
      amount = f'{kind.count:,}'
      where = _spread(kind)
      lines.append(f'{amount:>11} x {kind.name}{where}')
      if weight != COUNTED:
        some = kind.examples[:_SHOWN]
        lines += [f'{"":13} {found}' for found in some]
        more = kind.count - len(some)
        lines += [f'{"":13} and {more:,} more'] if more > 0 else []
  lines += ['', verdict(checked)]
  return '\n'.join(lines)


def verdict(checked: Checked) -> str:
  """Returns the last line: whether a build would go through."""
  if checked.sound:
    warned = sum(k.count for k in checked.of_weight(WARNED))
    if checked.copy is None:
      return (
        'Sound as far as the annotations go, the images were not looked at; '
        f'{warned:,} warnings.'
      )
    return f'Sound: a build refuses nothing; {warned:,} warnings.'
  counts = [
    sum(kind.count for kind in checked.of_weight(weight))
    for weight in (REFUSED, SKIPPED)
  ]
  return (
    f'Not sound: {sum(counts):,} errors, of which --skip_bad leaves out '
    f'{counts[1]:,}.'
  )


def _sizes(checked: Checked) -> str:
  return ', '.join(f'{n:,} {name}' for name, n in checked.numbers.items())


def _copy_line(checked: Checked) -> str:
  if checked.copy is None:
    return 'images: not looked at'
  return f'images: {checked.copy.path}'


def _spread(kind: Kind) -> str:
  classes = [wnid for wnid in kind.classes if wnid]
  if not classes:
    return ''
  some = ', '.join(classes[:4])
  return f'  [{some}{f" and {len(classes) - 4} more" * (len(classes) > 4)}]'


def write_page(checked: Checked, path: str | pathlib.Path) -> pathlib.Path:
  """Writes the report as one page with pictures and returns its path."""
  evidence = Evidence(checked.release, checked.copy)
  wanted: list[tuple[str, Finding]] = []
  for kind in checked.kinds:
    wanted += [(kind.name, found) for found in _chosen(kind.examples)]
  # Class by class: each file is read once.
  wanted.sort(key=lambda pair: pair[1].place.wnid)
  drawn: dict[str, list[dict[str, str]]] = {}
  for name, found in wanted:
    card = {'picture': evidence.picture(found), 'where': str(found)}
    drawn.setdefault(name, []).append(card)
  names = dict(
    zip(checked.table.wnids, checked.table.object_names, strict=True)
  )
  return template.write(
    path,
    'check.html.j2',
    title=checked.release.folder.resolve().name,
    folder=str(checked.release.folder),
    copied=_copy_line(checked),
    sizes=checked.numbers,
    sound=checked.sound,
    verdict=verdict(checked),
    label_hash=checked.table.hash,
    split=f'{checked.split_rule}; hash {checked.split_hash}',
    weights=[
      (weight, heading, meaning, checked.of_weight(weight))
      for weight, (heading, meaning) in WEIGHTS.items()
    ],
    guards=GUARDS,
    cards=drawn,
    names=names,
    rows=_rows(checked, names),
  )


def _chosen(examples: Sequence[Finding]) -> list[Finding]:
  """Returns a few examples, from as many classes as there are."""
  first: list[Finding] = []
  rest: list[Finding] = []
  seen: set[str] = set()
  for found in examples:
    (rest if found.place.wnid in seen else first).append(found)
    seen.add(found.place.wnid)
  return (first + rest)[:PICTURES]


def _rows(checked: Checked, names: Mapping[str, str]) -> list[dict[str, Any]]:
  """Returns a row per class, those with errors first."""
  wnids = sorted({*names, *(w for k in checked.kinds for w in k.classes if w)})
  rows = []
  for wnid in wnids:
    found = {
      weight: [
        (kind.name, kind.classes[wnid])
        for kind in checked.of_weight(weight)
        if wnid in kind.classes
      ]
      for weight in WEIGHTS
    }
    rows.append(
      {
        'wnid': wnid,
        'name': names.get(wnid, ''),
        'images': checked.images.get(wnid, 0),
        'errors': found[REFUSED] + found[SKIPPED],
        'warnings': found[WARNED],
        'counted': found[COUNTED],
      }
    )
  key = lambda row: (not row['errors'], not row['warnings'], row['wnid'])
  return sorted(rows, key=key)


def parser() -> argparse.ArgumentParser:
  """Returns the command line of this tool."""
  result = argparse.ArgumentParser(
    prog='pinpp check',
    description='Checks a release folder with every guard of the builder.',
    epilog='Exit status: 0 if a build would refuse nothing, 1 if it would.',
  )
  add = result.add_argument
  add('release', help='the folder that holds json/ and including/')
  add(
    '--imagenet_dir',
    default='',
    help='the ImageNet copy; default: that in the folder, if there is one',
  )
  add('--json', metavar='FILE', help='write everything found for machines')
  add('--html', metavar='FILE', help='write a page with pictures')
  add(
    '--full',
    action='store_true',
    help='it must be the complete release of 1,000 classes',
  )
  add(
    '--expect',
    type=_expected,
    metavar='NUMBERS',
    help='totals it must have, such as classes=7,images=756',
  )
  return result


def _expected(words: str) -> dict[str, int]:
  """Returns the totals that a command line expects."""
  result = {}
  for word in words.split(','):
    name, _, number = word.partition('=')
    if name not in check_release.PUBLISHED or not number.isdigit():
      raise argparse.ArgumentTypeError(
        f'{word!r} is not <name>=<number> with a name of '
        f'{", ".join(check_release.PUBLISHED)}'
      )
    result[name] = int(number)
  return result


def _bar(wnids: Sequence[str]) -> Iterable[str]:
  quiet = None if len(wnids) > 20 else True  # None: only on a terminal.
  return tqdm.tqdm(wnids, desc='Checking', unit=' classes', disable=quiet)


def main(arguments: Sequence[str] | None = None) -> int:
  """Prints the report; returns 0 (sound), 1 (not sound) or 2 (no release)."""
  options = parser().parse_args(arguments)
  try:
    checked = check(
      options.release,
      imagenet_dir=options.imagenet_dir,
      full=options.full,
      expected=options.expect,
      progress=_bar,
    )
    terminal.show(text(checked))
    if options.json:
      files.write_json(options.json, as_dict(checked))
    if options.html:
      terminal.show(f'wrote {write_page(checked, options.html)}')
  except (UserError, OSError) as error:
    print(f'pinpp check: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('pinpp check: stopped', file=sys.stderr)
    return 130
  return 0 if checked.sound else 1


if __name__ == '__main__':
  sys.exit(main())
