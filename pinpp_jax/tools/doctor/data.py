"""Of the doctor: data sets, the release, and the ImageNet copy."""

from collections.abc import Iterator
import json
import os
import pathlib

from pinpp_jax.errors import UserError
from pinpp_jax.tools.doctor.diagnosis import Line, missing, ok, warn

_SAMPLED = 5  # Classes of which one image is looked up in the copy.
_SOURCE = 'https://huggingface.co/datasets/lixiao20/PartImageNetPP'
_BUILD = 'pinpp build'


def data_sets(root: pathlib.Path) -> Iterator[Line]:
  """Yields every data set of ours that is built below a folder."""
  from pinpp_jax.data.read import pseudo

  found = False
  for path in sorted(root.glob('*/*/dataset_info.json')):
    folder = path.parent
    name = f'{folder.parent.name} {folder.name}'
    if 'incomplete' in folder.name or folder.name.endswith('.replaced'):
      continue
    if not (folder / 'labels.json').is_file():
      if folder.parent.name.startswith('pinpp'):
        yield missing(name, f'{folder} has no labels.json', f'rm -r {folder}')
      continue
    found = True
    try:
      if (folder / pseudo.MANIFEST).is_file():
        pseudo.check(folder)
      yield ok(name, f'{_contents(folder)}, in {folder}')
    except UserError as error:
      yield missing(name, str(error))
  for folder in sorted(root.glob('pinpp*/*.incomplete*')):
    yield warn('unfinished build', str(folder), f'rm -r {folder}')
  if not found:
    command = f'{_BUILD} pinpp_mini --data_dir={root}'
    yield warn('data sets', f'none is built in {root}', command)


def _contents(folder: pathlib.Path) -> str:
  """Returns what a built data set holds; every hash and shard is compared.

  Raises:
    UserError: something is missing or was changed.
  """
  from pinpp_jax.data.labels import LabelTable
  from pinpp_jax.data.release import splits

  table = LabelTable.load(folder / 'labels.json')
  if (folder / splits.FILE).is_file():
    splits.load(folder)
  info = json.loads((folder / 'dataset_info.json').read_text())
  lengths = {
    one['name']: [int(n) for n in one.get('shardLengths', [])]
    for one in info.get('splits', [])
  }
  shards = len(list(folder.glob('*.array_record*')))
  expected = sum(map(len, lengths.values()))
  if shards != expected:
    raise UserError(
      f'{folder} has {shards} shards instead of {expected}. Delete the folder '
      'and build it again.'
    )
  counts = ', '.join(f'{name} {sum(n):,}' for name, n in lengths.items())
  return f'{table.num_classes:,} classes, {table.num_parts:,} parts; {counts}'


def release(folder: pathlib.Path, named: bool) -> Iterator[Line]:
  """Yields what of the release lies in the manual folder.

  Args:
    folder: the manual folder of pinpp.
    named: whether somebody said that it is there.
  """
  if not (folder / 'json').is_dir():
    state = 'has no json/' if folder.is_dir() else 'does not exist'
    say = missing if named else warn
    yield say('release', f'{folder} {state}', f'git clone {_SOURCE} {folder}')
    return
  from pinpp_jax.data.release.findings import Findings
  from pinpp_jax.data.release.reader import Release

  findings = Findings(collect=True)
  count = len(Release(folder, findings).wnids)
  including = len(list((folder / 'including').glob('*.txt')))
  words = f'{count:,} classes, {including:,} with containments, in {folder}'
  whole = count == 1000
  yield ok('release', words if whole else f'{words}; the published one: 1,000')
  for name, why in (
    ('category_name.json', 'names of objects are guessed from those of parts'),
    ('discarded_data.json', 'discarded images cannot be told'),
  ):
    if not (folder / name).is_file():
      yield warn('release', f'{name} is not there: {why}')
  for kind in (*findings.refused, *findings.skipped):
    example = findings.examples[kind][0]
    command = f'pinpp check {folder}'
    yield missing('release', f'{kind}: {example}', command)


def images(
  folder: pathlib.Path, imagenet_dir: str, variable: str
) -> Iterator[Line]:
  """Yields which ImageNet copy there is, and whether it fits the release.

  Args:
    folder: the manual folder of pinpp.
    imagenet_dir: the copy, if it was named.
    variable: name of the variable of the environment that names it otherwise.
  """
  from pinpp_jax.data.imagenet import layouts
  from pinpp_jax.data.release.findings import Findings
  from pinpp_jax.data.release.reader import Release

  given = imagenet_dir or os.environ.get(variable, '')
  try:
    copy = layouts.open_copy(given or folder)
  except UserError as error:
    hint = f'export {variable}=DIR'
    say = missing if given else warn
    yield say('ImageNet copy', str(error), '' if given else hint)
    return
  usable = []
  for split in copy.splits:
    try:
      count = len(copy.wnids(split))
      words = f'{count:,} classes in {split}; {copy.path}'
      yield ok('ImageNet copy', words)
      usable.append(split)
    except UserError as error:
      say = missing if split == 'train' else warn
      yield say('ImageNet copy', f'{split}: {error}')
  if not (folder / 'json').is_dir() or 'train' not in usable:
    return
  found = Release(folder, Findings(collect=True))
  lacking = sorted(set(found.wnids) - set(copy.wnids('train')))
  if lacking:
    words = f'{len(lacking)} classes of the release are not in it'
    yield missing('ImageNet copy', f'{words}, first {lacking[0]}')
  step = max(1, len(found.wnids) // _SAMPLED)
  looked = [w for w in found.wnids[::step] if w not in lacking][:_SAMPLED]
  absent = []
  for wnid in looked:
    try:
      name = found.load(wnid).images[0].file_name
      copy.read(name, 'train')
    except (UserError, IndexError) as error:
      absent.append(str(error))
  if absent:
    words = f'{len(absent)} of {len(looked)} sampled images: {absent[0]}'
    command = f'pinpp check {folder}'
    yield missing('ImageNet copy', words, command)


def next_build(
  root: pathlib.Path,
  folder: pathlib.Path,
  imagenet_dir: str,
  lines: list[Line],
) -> Iterator[Line]:
  """Yields how to build pinpp, if it is not built and could be."""
  there = {line.what.partition(' ')[0] for line in lines if line.state == 'ok'}
  if 'pinpp' in there or not {'release', 'ImageNet'} <= there:
    return
  if any(line.state == 'missing' for line in lines):
    return
  place = f' --imagenet_dir={imagenet_dir}' if imagenet_dir else ''
  command = f'{_BUILD} pinpp --manual_dir={folder}{place} --data_dir={root}'
  yield warn('pinpp', 'not built; release and images are there', command)
