"""The label table of a data set, a run or a release: look up, search, export.

pinpp labels pinpp_mini wheel
pinpp labels RELEASE --object=tench
pinpp labels runs/mpm-mini --csv --output=parts.csv
"""

import argparse
from collections.abc import Sequence
import json
import sys
from typing import Any

from pinpp_jax.data import colours, files
from pinpp_jax.data.labels import LabelTable, Part
from pinpp_jax.data.read import open_any
from pinpp_jax.data.release import concepts
from pinpp_jax.errors import UserError
from pinpp_jax.machine import data_folder
from pinpp_jax.tools import columns, terminal

_EPILOG = """\
Pixel 0 of a part mask is background, 1, 2, ... are the parts of the image's
class ("local"); "id" numbers the parts of all classes. "generic" is the part's
name without its object, "concept" the same for all spellings of one thing
(legs, leg), by the list pinpp_jax/data/release/concepts.csv; it is empty for
words such as "others" and for parts that are the whole object. Search words
compare without case and may be anywhere in a name; all of them must be found.

Exit status: 0, 1 if nothing matches, 2 after a mistake.
"""


def parser() -> argparse.ArgumentParser:
  """Returns the command line of this tool."""
  result = argparse.ArgumentParser(
    prog='pinpp labels',
    description='Shows which number means which part of which class.',
    epilog=_EPILOG,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = result.add_argument
  add(
    'source',
    help='a built data set (name or folder), a run, a labels.json or a release',
  )
  add('words', nargs='*', help='what to find, in any of the names')
  add('--object', default='', metavar='WORD', help='find in object names')
  add('--part', default='', metavar='WORD', help='find in part names')
  add('--wnid', default='', metavar='WORD', help='find in class ids')
  add(
    '--concepts',
    action='store_true',
    help='one line per concept, instead of one per part',
  )
  add('--data_dir', default='', help=data_folder.HELP)
  form = result.add_mutually_exclusive_group()
  form.add_argument('--csv', action='store_true', help='as CSV')
  form.add_argument('--json', action='store_true', help='as JSON')
  add('--output', metavar='FILE', help='write there instead of showing')
  return result


def search(
  table: LabelTable,
  words: Sequence[str] = (),
  *,
  in_object: str = '',
  in_part: str = '',
  in_wnid: str = '',
) -> list[Part]:
  """Returns the parts in which everything is found, in the table's order.

  Args:
    table: where to look.
    words: each must be in the wnid, object, part or concept.
    in_object: must be in the object's name.
    in_part: must be in the part's full name or its concept.
    in_wnid: must be in the wnid.
  """
  found = []
  for part in table.parts:
    names = {
      'wnid': part.wnid,
      'object': part.object_name,
      'part': f'{part.name}\n{concepts.of_part(part)}',
    }
    folded = {key: _folded(text) for key, text in names.items()}
    anywhere = '\n'.join(folded.values())
    if (
      all(_folded(word) in anywhere for word in words)
      and _folded(in_object) in folded['object']
      and _folded(in_part) in folded['part']
      and _folded(in_wnid) in folded['wnid']
    ):
      found.append(part)
  return found


def _folded(text: str) -> str:
  return text.replace('_', ' ').casefold()


def row(part: Part) -> dict[str, Any]:
  """Returns a part as one line of the table."""
  return {
    'id': part.global_id,
    'wnid': part.wnid,
    'object': part.object_name,
    'local': part.local_index,
    'part': part.name,
    'generic': part.generic_name,
    'concept': concepts.of_part(part),
    'whole': concepts.whole(part),
    'inside': list(part.parent),
    'masks': part.count,
    'colour': colours.colour(part.local_index),
  }


def concept_rows(
  table: LabelTable, parts: Sequence[Part]
) -> list[dict[str, Any]]:
  """Returns a line for every concept that one of the parts has."""
  wanted = {concepts.of_part(part) for part in parts}
  return [
    {
      'concept': one.name,
      'classes': one.classes,
      'parts': len(one.parts),
      'masks': one.masks,
      'spellings': list(one.spellings),
    }
    for one in concepts.of_table(table)
    if one.name in wanted
  ]


def as_json(table: LabelTable, rows: Sequence[dict[str, Any]]) -> str:
  """Returns the lines for machines, with the table they belong to."""
  value = {
    'hash': table.hash,
    'num_classes': table.num_classes,
    'num_parts': table.num_parts,
    'rows': rows,
  }
  return json.dumps(value, indent=1, ensure_ascii=False) + '\n'


def as_text(
  table: LabelTable, rows: Sequence[dict[str, Any]], matching: int
) -> str:
  """Returns the lines for the terminal, and what they are of."""
  shown = [{k: v for k, v in r.items() if k != 'colour'} for r in rows]
  return (
    f'{columns.aligned(shown)}\n\n{matching:,} of {table.num_parts:,} parts, '
    f'{table.num_classes:,} classes; label table {table.hash[:16]}\n'
  )


def main(arguments: Sequence[str] | None = None) -> int:
  """Shows or writes the table; returns 0, 1 (nothing found) or 2."""
  options = parser().parse_intermixed_args(arguments)
  try:
    table = open_any.label_table(options.source, options.data_dir)
    parts = search(
      table,
      options.words,
      in_object=options.object,
      in_part=options.part,
      in_wnid=options.wnid,
    )
    rows = (
      concept_rows(table, parts)
      if options.concepts
      else [row(part) for part in parts]
    )
    if not rows:
      print(
        f'pinpp labels: nothing in {options.source} matches', file=sys.stderr
      )
      return 1
    if options.json:
      text = as_json(table, rows)
    elif options.csv:
      text = columns.as_csv(rows)
    else:
      text = as_text(table, rows, len(parts))
    if options.output:
      files.write(options.output, text)
      print(f'wrote {options.output}: {len(rows):,} lines')
    else:
      terminal.show(text)
  except (UserError, OSError) as error:
    print(f'pinpp labels: {error}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main())
