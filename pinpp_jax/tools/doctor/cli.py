"""Says what is installed, what JAX runs on, which data there are, what to do.

  pinpp doctor
  pinpp doctor --manual_dir=PIN++ --imagenet_dir=IMAGENET

Nothing is changed. Exit status: 0, or 1 if something that was found or named
cannot work.
"""

import argparse
from collections.abc import Iterator, Sequence
import dataclasses
import json
import os
import pathlib
import textwrap

from pinpp_jax.machine import data_folder
from pinpp_jax.machine.accelerators import accelerators
from pinpp_jax.tools import terminal
from pinpp_jax.tools.doctor import data, diagnosis, machine
from pinpp_jax.tools.doctor.diagnosis import Line

# As pinpp_jax.data has it, which cannot be imported everywhere.
_IMAGENET_VARIABLE = 'PINPP_IMAGENET_DIR'


def parser() -> argparse.ArgumentParser:
  """Returns the command line of this tool."""
  result = argparse.ArgumentParser(
    prog='pinpp doctor',
    description='Says what is there, what is missing, and what to type next.',
    epilog='Exit status: 0, or 1 if something that was found or named cannot '
    'work.',
  )
  add = result.add_argument
  add('--data_dir', default='', help=data_folder.HELP)
  add(
    '--manual_dir',
    default='',
    help='the release; default: <data_dir>/downloads/manual/pinpp',
  )
  add(
    '--imagenet_dir',
    default='',
    help=f'the ImageNet copy; default: {_IMAGENET_VARIABLE}, or the release',
  )
  add('--json', action='store_true', help='for machines')
  return result


def examine(
  data_dir: str, manual_dir: str = '', imagenet_dir: str = ''
) -> dict[str, list[Line]]:
  """Returns what was found, by section; never raises.

  Args:
    data_dir: where built data sets lie.
    manual_dir: the release, by default where TFDS looks for it.
    imagenet_dir: the ImageNet copy, if it is elsewhere.
  """
  root = pathlib.Path(data_dir).expanduser()
  usual = root / 'downloads' / 'manual' / 'pinpp'
  folder = pathlib.Path(manual_dir).expanduser() if manual_dir else usual

  def devices() -> Iterator[Line]:
    return machine.devices(
      machine.probe(),
      accelerators(),
      os.environ.get('JAX_PLATFORMS', ''),
    )

  look = {
    'Installation': [('packages', machine.installed)],
    'Devices': [
      ('JAX', devices),
      ('machine', lambda: machine.machine(root)),
    ],
    'Data': [
      ('data sets', lambda: data.data_sets(root)),
      ('release', lambda: data.release(folder, bool(manual_dir))),
      (
        'ImageNet copy',
        lambda: data.images(folder, imagenet_dir, _IMAGENET_VARIABLE),
      ),
    ],
  }
  found = {
    title: [line for one in looks for line in diagnosis.guarded(*one)]
    for title, looks in look.items()
  }
  found['Data'] += data.next_build(root, folder, imagenet_dir, found['Data'])
  return found


def text(sections: dict[str, list[Line]]) -> str:
  """Returns the diagnosis for the terminal."""
  result = []
  for title, lines in sections.items():
    result += [title]
    for line in lines:
      head = f'  {diagnosis.MARKS[line.state]} {line.what}: '
      result += textwrap.wrap(
        head + line.found,
        width=96,
        subsequent_indent=6 * ' ',
        break_on_hyphens=False,
        break_long_words=False,
      )
    result += ['']
  every = [line for lines in sections.values() for line in lines]
  commands = dict.fromkeys(line.command for line in every if line.command)
  if commands:
    result += ['Next', *(f'  {command}' for command in commands), '']
  counts = [
    sum(line.state == state for line in every)
    for state in (diagnosis.MISSING, diagnosis.WARN)
  ]
  result += [
    f'{counts[0]} missing or broken (x), {counts[1]} worth a look (!).'
  ]
  return '\n'.join(result)


def main(arguments: Sequence[str] | None = None) -> int:
  """Prints the diagnosis; returns 0, or 1 if something cannot work."""
  options = parser().parse_args(arguments)
  data_dir = options.data_dir or str(data_folder.default())
  found = examine(data_dir, options.manual_dir, options.imagenet_dir)
  lines = [line for some in found.values() for line in some]
  broken = any(line.state == diagnosis.MISSING for line in lines)
  if options.json:
    plain = {
      title: [dataclasses.asdict(line) for line in some]
      for title, some in found.items()
    }
    terminal.show(json.dumps({'works': not broken, **plain}, indent=1))
  else:
    terminal.show(text(found))
  return int(broken)
