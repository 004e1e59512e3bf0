"""Reads a PartImageNet++ release: annotations only, one COCO file a class.

The published facts about the format are few, so the reader is tolerant in what
it accepts (ids as strings or from any base, flat polygons, run lengths, line
endings) and strict in what it drops: nothing is left out uncounted.
"""

from collections.abc import Iterator
import copy
import dataclasses
import pathlib
import re
from typing import Any

from pinpp_jax.data import text
from pinpp_jax.data.release import coco_masks, nesting
from pinpp_jax.data.release.findings import Findings, Place, Refused
from pinpp_jax.data.release.records import Annotation, ClassRecord, ImageRecord
from pinpp_jax.errors import UserError

_WNID = re.compile(r'n[0-9]{8}')
_FILE_NAME = re.compile(r'(n[0-9]{8})/\1_[0-9]{1,18}\.JPEG')
_BBOX_TOLERANCE = 5.0  # pixels
_INTEGER = (
  2**53
)  # Ids and sizes are smaller; JSON itself holds no more exactly.
_LONGEST_SIDE = 65_535  # pixels; no JPEG file has more.
_MOST_PIXELS = 2**26  # Of an image.
_MOST_PAINTED = 2**29  # Pixels of an image times its annotations, held at once.


class Release:
  """A folder in the layout of the release.

  `wnids` are the classes in sorted order; `load` reads one of them. Only one
  class is held in memory at a time. `discarded` are the names of discarded
  images, as far as they can be read.

  Raises:
    UserError: the folder, `json/` or an index file is missing or broken.
  """

  def __init__(self, folder: str | pathlib.Path, findings: Findings):
    self.folder = pathlib.Path(folder).expanduser()
    self.findings = findings
    self.wnids = _wnids(self.folder, findings)
    self._names = self._category_names()
    self.discarded = self._discarded_names()
    for path in sorted((self.folder / 'including').glob('[!.]*')):
      if path.stem not in self.wnids:
        place = Place(text=f'including/{path.name}')
        findings.warn('containment file of no class', place)

  def noting(self, findings: Findings) -> 'Release':
    """Returns the same release, whose findings go elsewhere."""
    other = copy.copy(self)
    other.findings = findings
    return other

  def __iter__(self) -> Iterator[ClassRecord]:
    """Yields every class in sorted order."""
    return (self.load(wnid) for wnid in self.wnids)

  def load(self, wnid: str) -> ClassRecord:
    """Returns one class, checked.

    Raises:
      UserError: names the file and the annotation, image or line.
    """
    place = Place(text=f'json/{wnid}.json', wnid=wnid)
    lists = self._lists(place)
    local, part_names = self._categories(lists['categories'], place)
    object_name = self._object_name(wnid, lists['categories'], part_names)
    generic = tuple(nesting.generic_name(n, object_name) for n in part_names)
    for name, bare in zip(part_names, generic, strict=True):
      named = Place(text=f'{wnid}: {name}', wnid=wnid)
      if nesting.normal(name) == nesting.normal(object_name):
        self.findings.note('whole-object part', named)
      elif name == bare:
        self.findings.note('part name without the object', named)
    return ClassRecord(
      wnid=wnid,
      object_name=object_name,
      part_names=part_names,
      generic_names=generic,
      # In the order of their local indices.
      category_ids=tuple(local),
      parents=self._parents(wnid, part_names, generic),
      images=self._images(lists, local, place),
    )

  def _read(self, name: str, wnid: str = '') -> Any:
    """Returns the content of a JSON file of the release."""
    path = self.folder / name
    try:
      return text.read_json(path)
    except UserError as error:
      detail = str(error).removeprefix(f'{path}: ')
      place = Place(text=name, wnid=wnid)
      self.findings.fatal('file that cannot be read', place, detail)

  def _lists(self, place: Place) -> dict[str, list[dict[str, Any]]]:
    """Returns a class file's three lists of objects."""
    data = self._read(place.text, place.wnid)
    kind = 'list missing, empty or of the wrong kind'
    lists = {}
    for key in ('images', 'annotations', 'categories'):
      entries = data.get(key) if isinstance(data, dict) else None
      if not isinstance(entries, list) or not entries:
        what = f'"{key}" must be a list that is not empty'
        self.findings.fatal(kind, place, what)
      if not all(isinstance(entry, dict) for entry in entries):
        self.findings.fatal(kind, place, f'"{key}" must hold objects only')
      lists[key] = entries
    return lists

  def _integer(self, value: Any, place: Place, key: str) -> int | None:
    """Returns an id or size as int; None after refusing it."""
    number = _integer(value)
    if number is None:
      what = f'{key} must be an integer, not {_short(value)}'
      self.findings.refuse('id or size that is no integer', place, what)
    return number

  def _categories(
    self, categories: list[dict[str, Any]], place: Place
  ) -> tuple[dict[int, int], tuple[str, ...]]:
    """Returns category id -> local index (1..n), and the names in order."""
    refuse = self.findings.refuse
    local: dict[int, int] = {}
    names: list[str] = []
    for position, category in enumerate(categories, 1):
      here = _inside(place, f'category {position}')
      number = self._integer(category.get('id'), here, 'id')
      name = category.get('name')
      if number is None:
        continue
      name = text.same(name) if isinstance(name, str) else ''
      if not name.strip():
        refuse('category without a name', here, f'{number} has no name')
      elif number in local:
        what = f'two categories have the id {number}'
        refuse('two categories with one id', place, what)
      elif name in names:
        what = f'two categories have the name {name!r}'
        refuse('two categories with one name', place, what)
      else:
        names.append(name)
        local[number] = len(names)
    if not names:
      kind = 'list missing, empty or of the wrong kind'
      self.findings.fatal(kind, place, 'no category can be used')
    if len(names) > 255:
      what = (
        f'{len(names)} parts in one class; part masks are 8-bit, so at most '
        '255 are possible'
      )
      self.findings.fatal('more parts than a mask can hold', place, what)
    self._compare_names(names, place)
    return local, tuple(names)

  def _compare_names(self, names: list[str], place: Place) -> None:
    """Compares a class's parts with those of the index file."""
    if place.wnid not in self._names:
      return
    _, listed = self._names[place.wnid]
    if sorted(listed) != sorted(names):
      index, own = (
        ', '.join(map(text.shown, sorted(some))) or 'nothing'
        for some in (set(listed) - set(names), set(names) - set(listed))
      )
      self.findings.refuse(
        'parts of category_name.json and the class file differ',
        place,
        f'category_name.json and {place} disagree about the parts: only the '
        f'first has {index}; only the second has {own}',
      )
    elif list(listed) != names:
      kind = 'order of parts differs in category_name.json'
      self.findings.warn(kind, place)

  def _object_name(
    self,
    wnid: str,
    categories: list[dict[str, Any]],
    part_names: tuple[str, ...],
  ) -> str:
    """Returns the object's name, from the index file or the class itself.

    Early revisions have no `category_name.json`; then the super-category that
    all parts share serves, then the words that all names begin with.
    """
    if wnid in self._names:
      return self._names[wnid][0]
    names = {str(one.get('supercategory') or '') for one in categories}
    if len(names) == 1 and (shared := names.pop()).strip():
      return shared
    words = [name.replace('_', ' ').split() for name in part_names]
    common = 0
    for column in zip(*words, strict=False):
      if len({word.casefold() for word in column}) > 1:
        break
      common += 1
    return ' '.join(words[0][:common]) or wnid

  def _parents(
    self, wnid: str, part_names: tuple[str, ...], generic: tuple[str, ...]
  ) -> tuple[tuple[int, ...], ...]:
    name = f'including/{wnid}.txt'
    path = self.folder / name
    content = ''
    try:
      content = text.read(path) if path.is_file() else ''
    except UserError as error:
      detail = str(error).removeprefix(f'{path}: ')
      place = Place(text=name, wnid=wnid)
      self.findings.refuse('file that cannot be read', place, detail)

    def refuse(line: str, kind: str, detail: str) -> None:
      place = Place(text=f'{name}, {line}', wnid=wnid)
      self.findings.refuse(kind, place, detail)

    return nesting.parse(content, part_names, generic, refuse)

  def _images(
    self,
    lists: dict[str, list[dict[str, Any]]],
    local: dict[int, int],
    place: Place,
  ) -> tuple[ImageRecord, ...]:
    """Returns the class's images with their annotations, in file order."""
    heads: dict[int, dict[str, Any]] = {}
    seen: set[str] = set()
    for position, entry in enumerate(lists['images'], 1):
      head = self._image(entry, _inside(place, f'image {position}'))
      if head is None:
        continue
      number, name = head['id'], head['file_name']
      here = _inside(place, f'image {number} ({name})', image=name)
      if number in heads or name in seen:
        self.findings.bad('second image with the same id or name', here)
        continue
      if name in self.discarded:
        self.findings.warn('annotated image listed as discarded', here)
      heads[number] = head
      seen.add(name)
    annotations: dict[int, list[Annotation]] = {key: [] for key in heads}
    numbers: set[int] = set()
    for position, entry in enumerate(lists['annotations'], 1):
      stored = entry.get('id', f'at place {position}')
      where = f'annotation {_short(stored)}'
      here = _inside(place, where)
      number = _integer(stored)
      if number is None:
        # Nothing refers to it: any text will do, and its place names it.
        number = -position
      image_id = self._integer(entry.get('image_id'), here, 'image_id')
      if image_id is None:
        continue
      if image_id in heads:
        name = heads[image_id]['file_name']
        here = _inside(place, where, image=name, annotation=number)
      if number in numbers:
        self.findings.bad('second annotation with the same id', here)
        continue
      numbers.add(number)
      if image_id not in heads:
        what = f'image_id {image_id} is no image of the file'
        self.findings.bad('annotation of an unknown image', here, what)
        continue
      annotation = self._annotation(entry, number, local, heads[image_id], here)
      if annotation:
        annotations[image_id].append(annotation)
    return tuple(
      ImageRecord(annotations=tuple(annotations[key]), **head)
      for key, head in heads.items()
      if self._paintable(head, len(annotations[key]), place)
    )

  def _paintable(self, head: dict[str, Any], count: int, place: Place) -> bool:
    """Whether the masks of an image's annotations fit into memory."""
    pixels, name = head['width'] * head['height'], head['file_name']
    if pixels * count <= _MOST_PAINTED:
      return True
    here = _inside(place, f'image {head["id"]} ({name})', image=name)
    what = f'{count:,} annotations over {pixels:,} pixels are too many'
    self.findings.bad('image too large', here, what)
    return False

  def _image(
    self, entry: dict[str, Any], place: Place
  ) -> dict[str, Any] | None:
    """Returns id, file_name, width and height of one image entry."""
    wnid, name = place.wnid, entry.get('file_name')
    match = _FILE_NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None or match[1] != wnid:
      what = f'file_name {_short(name)!r} is not "{wnid}/{wnid}_<number>.JPEG"'
      self.findings.refuse('file_name of another form or class', place, what)
      return None
    here = dataclasses.replace(place, text=f'{place} ({name})', image=name)
    head: dict[str, Any] = dict(file_name=name)
    for key in ('id', 'width', 'height'):
      number = self._integer(entry.get(key), here, key)
      if number is None:
        return None
      head[key] = number
    sides = head['width'], head['height']
    if max(sides) > _LONGEST_SIDE or sides[0] * sides[1] > _MOST_PIXELS:
      what = (
        f'{sides[0]} x {sides[1]} pixels; at most {_LONGEST_SIDE:,} a side and '
        f'{_MOST_PIXELS:,} in all are read'
      )
      self.findings.bad('image too large', here, what)
      return None
    if min(sides) < 1:
      what = 'width and height must be positive'
      self.findings.refuse('id or size that is no integer', here, what)
      return None
    return head

  def _annotation(
    self,
    entry: dict[str, Any],
    number: int,
    local: dict[int, int],
    head: dict[str, Any],
    place: Place,
  ) -> Annotation | None:
    """Returns one annotation, or None when nothing usable is left of it."""
    findings = self.findings
    category = self._integer(entry.get('category_id'), place, 'category_id')
    if category is None:
      return None
    if category not in local:
      what = f'category_id {category} is no category'
      findings.bad('annotation of an unknown category', place, what)
      return None
    if isinstance(entry['category_id'], str):
      findings.note('category_id stored as text', place)
    polygons, rle = coco_masks.read(
      entry.get('segmentation', []),
      height=head['height'],
      width=head['width'],
      note=lambda kind: findings.note(kind, place),
      bad=lambda kind, detail: findings.bad(kind, place, detail),
    )
    if not polygons and rle is None:
      findings.note('annotation without a usable outline', place)
      return None
    _check_bbox(entry.get('bbox'), polygons, place, findings)
    return Annotation(
      id=number, part=local[category], polygons=polygons, rle=rle, entry=entry
    )

  def _category_names(self) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Returns wnid -> (object name, part names); empty in early revisions."""
    file = 'category_name.json'
    if not (self.folder / file).is_file():
      return {}
    place, kind = Place(text=file), 'broken entry in category_name.json'
    names: dict[str, tuple[str, tuple[str, ...]]] = {}
    try:
      entries = self._read(file)
      if not isinstance(entries, list):
        self.findings.fatal(kind, place, 'must be a list')
    except Refused:
      if not self.findings.collect:
        raise
      return {}
    for position, entry in enumerate(entries, 1):
      row, problem = _name_row(entry)
      if row and row[0] in names:
        problem = f'{row[0]} appears twice'
      if not row or problem:
        self.findings.refuse(kind, _inside(place, f'entry {position}'), problem)
        continue
      names[row[0]] = row[1:]
    odd = sorted(set(names) ^ set(self.wnids))
    if odd:
      self.findings.refuse(
        'classes of category_name.json and json/ differ',
        place,
        f'category_name.json and json/ do not hold the same classes: '
        f'{len(odd)} differ, first {odd[0]}',
      )
    return names

  def _discarded_names(self) -> frozenset[str]:
    """Returns the names of discarded images, as far as they can be read."""
    file = 'discarded_data.json'
    if not (self.folder / file).is_file():
      return frozenset()
    names: set[str] = set()
    try:
      waiting = [self._read(file)]
    except Refused:
      if not self.findings.collect:
        raise
      return frozenset()
    while waiting:
      value = waiting.pop()
      if isinstance(value, dict):
        waiting.extend(value.keys())
        waiting.extend(value.values())
      elif isinstance(value, list):
        waiting.extend(value)
      elif isinstance(value, str) and value.endswith('.JPEG'):
        base = pathlib.PurePosixPath(value).name
        names.add(f'{base.split("_")[0]}/{base}')
    return frozenset(names)


def _inside(place: Place, words: str, **more: Any) -> Place:
  """Returns a place in a file, such as one of its entries."""
  return dataclasses.replace(place, text=f'{place}, {words}', **more)


def _integer(value: Any) -> int | None:
  """Returns an id or size as int, None for anything else.

  Integers in text are accepted.
  """
  number = None
  if isinstance(value, float) and value.is_integer():
    number = int(value)
  elif isinstance(value, int) and not isinstance(value, bool):
    number = value
  elif isinstance(value, str) and re.fullmatch(r'\s*-?[0-9]{1,16}\s*', value):
    number = int(value)
  return number if number is not None and abs(number) < _INTEGER else None


def _short(value: Any) -> str:
  """Returns what a file holds, as much of it as a message needs."""
  words = value if isinstance(value, str) else repr(value)
  return words if len(words) <= 60 else f'{words[:60]}... ({len(words)} signs)'


def _wnids(folder: pathlib.Path, findings: Findings) -> tuple[str, ...]:
  """Returns the classes of a release in sorted order."""
  if not folder.is_dir():
    raise UserError(
      f'{folder} does not exist. Put the PartImageNet++ release there (json/, '
      'including/, category_name.json), or name another folder.'
    )
  files = sorted((folder / 'json').glob('[!.]*'))
  wnids = []
  for path in files:
    if path.suffix == '.json' and _WNID.fullmatch(path.stem):
      wnids.append(path.stem)
      continue
    findings.refuse(
      'stray file in json/',
      Place(text=f'json/{path.name}'),
      'json/ may hold only files named <wnid>.json',
    )
  if not wnids:
    raise UserError(
      f'{folder} has no json/<wnid>.json files. Put the PartImageNet++ release '
      'there: json/, including/, category_name.json, discarded_data.json.'
    )
  return tuple(wnids)


def _name_row(
  entry: Any,
) -> tuple[tuple[str, str, tuple[str, ...]] | None, str]:
  """Returns (wnid, object name, part names) or None, and what is wrong."""
  try:
    wnid = pathlib.PurePosixPath(entry['file name']).stem
    object_name, parts = entry['object name'], tuple(entry['part name'])
  except (KeyError, TypeError, AttributeError):
    return None, 'needs "file name", "object name" and "part name"'
  if not isinstance(object_name, str) or not all(
    isinstance(part, str) for part in parts
  ):
    return None, 'names must be text'
  if not _WNID.fullmatch(wnid):
    return None, f'{_short(wnid)!r} is no wnid'
  parts = tuple(text.same(part) for part in parts)
  return (wnid, text.same(object_name), parts), ''


def _check_bbox(
  bbox: Any, polygons: tuple, place: Place, findings: Findings
) -> None:
  """Warns when a box (x, y, width, height) is not around its polygons."""
  if not polygons or bbox is None:
    return
  low = [min(float(p[:, axis].min()) for p in polygons) for axis in (0, 1)]
  high = [max(float(p[:, axis].max()) for p in polygons) for axis in (0, 1)]
  try:
    x, y, width, height = (float(value) for value in bbox)
  except (TypeError, ValueError, OverflowError):
    findings.warn('bbox that is not four numbers', place)
    return
  pairs = zip((x, y, x + width, y + height), low + high, strict=True)
  if not all(abs(a - b) <= _BBOX_TOLERANCE for a, b in pairs):
    findings.warn('bbox away from its polygons', place)
