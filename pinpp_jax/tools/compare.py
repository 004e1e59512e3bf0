r"""Two robustness evaluations of the same images, image by image.

  pinpp compare A/result.json B/result.json

For each set of flags that both results have: either accuracy, the images that
only one of the networks gets right, and McNemar's exact two-sided test of
whether that is chance (McNemar, 1947): a binomial test over those images.
"""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
import sys
from typing import Any

from scipy import stats

from pinpp_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
  """Two networks on the same images.

  Attributes:
    images: How many.
    first: Images that the first network gets right.
    second: Images that the second one gets right.
    only_first: Images that only the first one gets right.
    only_second: Images that only the second one gets right.
  """

  images: int
  first: int
  second: int
  only_first: int
  only_second: int

  @property
  def p_value(self) -> float:
    """Returns McNemar's exact two-sided p value; 1 if they never differ."""
    apart = self.only_first + self.only_second
    if not apart:
      return 1.0
    return float(stats.binomtest(self.only_first, apart).pvalue)


def pair(first: str, second: str) -> Pair:
  """Returns the counts of two strings of flags, '1' for right."""
  both = list(zip(first, second, strict=True))
  return Pair(
    images=len(both),
    first=first.count('1'),
    second=second.count('1'),
    only_first=both.count(('1', '0')),
    only_second=both.count(('0', '1')),
  )


def compare(
  first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, Pair]:
  """Returns pairs by flag: 'clean', 'robust' and each attack of both.

  Flags of single attacks are compared only where each attack had every image.

  Raises:
    UserError: The results are of other images, another ball or version.
  """
  for name in ('norm', 'eps', 'version', 'ids'):
    if first[name] != second[name]:
      raise UserError(
        f'The results cannot be compared image by image: their {name} differ.'
      )
  names = ['clean', 'robust']
  if first['identity']['individual'] and second['identity']['individual']:
    names += [name for name in first['flags'] if name not in names]
  flags = first['flags'], second['flags']
  return {name: pair(flags[0][name], flags[1][name]) for name in names}


def load(path: pathlib.Path) -> dict[str, Any]:
  """Returns a `result.json`.

  Raises:
    UserError: It is not there, or something else.
  """
  try:
    result = json.loads(path.read_text())
    _ = result['flags']['robust'], result['ids'], result['identity']
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(
      f'{path} is not the result.json of a finished evaluation ({error}).'
    ) from error
  return result


def table(pairs: Mapping[str, Pair]) -> str:
  """Returns lines of text, one per pair."""
  head = ('', 'first', 'second', 'only first', 'only second', 'p')
  lines = ['{:12}{:>9}{:>9}{:>12}{:>13}{:>9}'.format(*head)]
  for name, found in pairs.items():
    lines.append(
      f'{name:12}{100 * found.first / found.images:7.2f} %'
      f'{100 * found.second / found.images:7.2f} %{found.only_first:12}'
      f'{found.only_second:13}{found.p_value:9.3f}'
    )
  return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
  """Prints one table; returns 2 after an error."""
  parser = argparse.ArgumentParser(
    prog='pinpp compare', description=(__doc__ or '').split('\n')[0]
  )
  parser.add_argument('first', type=pathlib.Path)
  parser.add_argument('second', type=pathlib.Path)
  options = parser.parse_args(arguments)
  try:
    results = load(options.first), load(options.second)
    pairs = compare(*results)
  except UserError as error:
    print(f'pinpp compare: {error}', file=sys.stderr)
    return 2
  result = results[0]
  print(
    f'{result["images"]} images, {result["norm"]}, eps {result["eps"]:.6g},'
    f' {result["version"]}'
  )
  print(table(pairs))
  return 0


if __name__ == '__main__':
  sys.exit(main())
