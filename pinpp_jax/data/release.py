"""Reads a PartImageNet++ release: annotations only, one COCO file a class.

The published facts about the format are few, so the reader is tolerant in what
it accepts (ids as strings or from any base, flat polygons, run lengths, line
endings) and strict in what it drops: nothing is left out uncounted.
"""

from collections.abc import Iterator
import json
import pathlib
import re
from typing import Any

from pinpp_jax.data import nesting, segmentation
from pinpp_jax.data.findings import Findings
from pinpp_jax.data.records import Annotation, ClassRecord, ImageRecord
from pinpp_jax.errors import UserError

_WNID = re.compile(r'n\d{8}')
_FILE_NAME = re.compile(r'(n\d{8})/\1_\d+\.JPEG')
_BBOX_TOLERANCE = 5.0  # pixels


class Release:
  """A folder in the layout of the release.

  `wnids` are the classes in sorted order; `load` reads one of them. Only one
  class is held in memory at a time.

  Raises:
    UserError: the folder, `json/` or an index file is missing or broken.
  """

  def __init__(self, folder: str | pathlib.Path, findings: Findings):
    self.folder = pathlib.Path(folder).expanduser()
    self.findings = findings
    self.wnids = _wnids(self.folder)
    self._names = _category_names(self.folder, self.wnids)
    self._discarded = _discarded(self.folder)

  def __iter__(self) -> Iterator[ClassRecord]:
    """Yields every class in sorted order."""
    return (self.load(wnid) for wnid in self.wnids)

  def load(self, wnid: str) -> ClassRecord:
    """Returns one class, checked.

    Raises:
      UserError: names the file and the annotation, image or line.
    """
    path = self.folder / 'json' / f'{wnid}.json'
    data = read_json(path)
    where = f'json/{wnid}.json'
    for key in ('images', 'annotations', 'categories'):
      entries = data.get(key) if isinstance(data, dict) else None
      if not isinstance(entries, list) or not entries:
        raise UserError(f'{where}: "{key}" must be a list that is not empty')
      if not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f'{where}: "{key}" must hold objects only')
    local, part_names = self._categories(data['categories'], where)
    object_name = self._object_name(wnid, data['categories'], part_names)
    generic = tuple(nesting.generic_name(n, object_name) for n in part_names)
    for name, bare in zip(part_names, generic, strict=True):
      if nesting.normal(name) == nesting.normal(object_name):
        self.findings.note('whole-object part', f'{wnid}: {name}')
      elif name == bare:
        self.findings.note('part name without the object', f'{wnid}: {name}')
    images = self._images(wnid, data, local, where)
    return ClassRecord(
      wnid=wnid,
      object_name=object_name,
      part_names=part_names,
      generic_names=generic,
      parents=self._parents(wnid, part_names, generic),
      images=images,
    )

  def _categories(
    self, categories: list[dict[str, Any]], where: str
  ) -> tuple[dict[int, int], tuple[str, ...]]:
    """Returns category id -> local index (1..n), and the names in order."""
    local: dict[int, int] = {}
    names: list[str] = []
    for index, category in enumerate(categories, 1):
      number = _integer(category.get('id'), f'{where}, category {index}: id')
      name = category.get('name')
      if not isinstance(name, str) or not name.strip():
        raise UserError(f'{where}, category {number}: has no name')
      if number in local:
        raise UserError(f'{where}: two categories have the id {number}')
      if name in names:
        raise UserError(f'{where}: two categories have the name {name!r}')
      local[number] = index
      names.append(name)
    if len(names) > 255:
      raise UserError(
        f'{where}: {len(names)} parts in one class; part masks are 8-bit, so '
        'at most 255 are possible'
      )
    wnid = pathlib.PurePosixPath(where).stem
    if wnid in self._names:
      _, listed = self._names[wnid]
      if sorted(listed) != sorted(names):
        odd = sorted(set(listed) ^ set(names)) or sorted(listed)
        raise UserError(
          f'category_name.json and {where} disagree about the parts: {odd}'
        )
      if list(listed) != names:
        self.findings.warn('order of parts differs in category_name.json', wnid)
    return local, tuple(names)

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
    names = {category.get('supercategory') for category in categories}
    shared = names.pop() if len(names) == 1 else None
    if isinstance(shared, str) and shared.strip():
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
    path = self.folder / 'including' / f'{wnid}.txt'
    text = read_text(path) if path.is_file() else ''
    return nesting.parse(text, f'including/{wnid}.txt', part_names, generic)

  def _images(
    self, wnid: str, data: dict[str, Any], local: dict[int, int], where: str
  ) -> tuple[ImageRecord, ...]:
    """Returns the class's images with their annotations, in file order."""
    heads: dict[int, dict[str, Any]] = {}
    seen: set[str] = set()
    for position, entry in enumerate(data['images'], 1):
      head = self._image(wnid, entry, f'{where}, image {position}')
      number, name = head['id'], head['file_name']
      here = f'{where}, image {number} ({name})'
      if number in heads or name in seen:
        self.findings.bad('second image with the same id or name', here)
        continue
      if name in self._discarded:
        self.findings.warn('annotated image listed as discarded', here)
      heads[number] = head
      seen.add(name)
    annotations: dict[int, list[Annotation]] = {key: [] for key in heads}
    numbers: set[int] = set()
    for position, entry in enumerate(data['annotations'], 1):
      label = f'{where}, annotation {entry.get("id", f"at place {position}")}'
      number = _integer(entry.get('id', position), f'{label}: id')
      if number in numbers:
        self.findings.bad('second annotation with the same id', label)
        continue
      numbers.add(number)
      image_id = _integer(entry.get('image_id'), f'{label}: image_id')
      if image_id not in heads:
        self.findings.bad(f'image_id {image_id} is no image of the file', label)
        continue
      annotation = self._annotation(
        entry, number, local, heads[image_id], label
      )
      if annotation:
        annotations[image_id].append(annotation)
    return tuple(
      ImageRecord(annotations=tuple(annotations[key]), **head)
      for key, head in heads.items()
    )

  def _image(
    self, wnid: str, entry: dict[str, Any], where: str
  ) -> dict[str, Any]:
    """Returns id, file_name, width and height of one image entry."""
    name = entry.get('file_name')
    match = _FILE_NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None or match[1] != wnid:
      raise UserError(
        f'{where}: file_name {name!r} is not "{wnid}/{wnid}_<number>.JPEG"'
      )
    head = {
      key: _integer(entry.get(key), f'{where} ({name}): {key}')
      for key in ('id', 'width', 'height')
    }
    if head['width'] < 1 or head['height'] < 1:
      raise UserError(f'{where} ({name}): width and height must be positive')
    return dict(head, file_name=name)

  def _annotation(
    self,
    entry: dict[str, Any],
    number: int,
    local: dict[int, int],
    head: dict[str, Any],
    where: str,
  ) -> Annotation | None:
    """Returns one annotation, or None when nothing usable is left of it."""
    category = _integer(entry.get('category_id'), f'{where}: category_id')
    if category not in local:
      self.findings.bad(f'category_id {category} is no category', where)
      return None
    if isinstance(entry['category_id'], str):
      self.findings.note('category_id stored as text', where)
    polygons, rle = segmentation.read(
      entry.get('segmentation', []),
      height=head['height'],
      width=head['width'],
      note=lambda kind: self.findings.note(kind, where),
      bad=lambda kind: self.findings.bad(kind, where),
    )
    if not polygons and rle is None:
      self.findings.note('annotation without a usable outline', where)
      return None
    _check_bbox(entry.get('bbox'), polygons, where, self.findings)
    return Annotation(
      id=number, part=local[category], polygons=polygons, rle=rle, entry=entry
    )


def read_text(path: pathlib.Path) -> str:
  """Returns a UTF-8 file's text without a byte-order mark.

  Raises:
    UserError: the file cannot be read or is not UTF-8.
  """
  try:
    return path.read_text(encoding='utf-8-sig')
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror})') from error
  except UnicodeDecodeError as error:
    raise UserError(f'{path}: is not UTF-8 text ({error})') from error


def read_json(path: pathlib.Path) -> Any:
  """Returns a JSON file's content.

  Raises:
    UserError: the file cannot be read or is not JSON (a truncated download).
  """
  try:
    return json.loads(read_text(path))
  except (ValueError, RecursionError) as error:
    raise UserError(
      f'{path}: is not valid JSON ({error}); was the download cut short?'
    ) from error


def _integer(value: Any, where: str) -> int:
  """Returns an id or size as int; integers in text are accepted."""
  if isinstance(value, float) and value.is_integer():
    return int(value)
  if isinstance(value, int) and not isinstance(value, bool):
    return value
  if isinstance(value, str) and re.fullmatch(r'\s*-?\d+\s*', value):
    return int(value)
  raise UserError(f'{where} must be an integer, not {value!r}')


def _wnids(folder: pathlib.Path) -> tuple[str, ...]:
  """Returns the classes of a release in sorted order."""
  if not folder.is_dir():
    raise UserError(
      f'{folder} does not exist. Put the PartImageNet++ release there (json/, '
      'including/, category_name.json), or name another folder.'
    )
  files = sorted((folder / 'json').glob('*'))
  files = [path for path in files if not path.name.startswith('.')]
  if not files:
    raise UserError(
      f'{folder} has no json/<wnid>.json files. Put the PartImageNet++ release '
      'there: json/, including/, category_name.json, discarded_data.json.'
    )
  for path in files:
    if path.suffix != '.json' or not _WNID.fullmatch(path.stem):
      raise UserError(f'{path}: json/ may hold only files named <wnid>.json')
  return tuple(path.stem for path in files)


def _category_names(
  folder: pathlib.Path, wnids: tuple[str, ...]
) -> dict[str, tuple[str, tuple[str, ...]]]:
  """Returns wnid -> (object name, part names); empty in early revisions."""
  path = folder / 'category_name.json'
  if not path.is_file():
    return {}
  entries = read_json(path)
  if not isinstance(entries, list):
    raise UserError(f'{path}: must be a list')
  names: dict[str, tuple[str, tuple[str, ...]]] = {}
  for position, entry in enumerate(entries, 1):
    try:
      wnid = pathlib.PurePosixPath(entry['file name']).stem
      object_name, parts = entry['object name'], tuple(entry['part name'])
    except (KeyError, TypeError) as error:
      raise UserError(
        f'{path}, entry {position}: needs "file name", "object name" and '
        '"part name"'
      ) from error
    if not isinstance(object_name, str) or not all(
      isinstance(part, str) for part in parts
    ):
      raise UserError(f'{path}, entry {position}: names must be text')
    if wnid in names:
      raise UserError(f'{path}: {wnid} appears twice')
    names[wnid] = (object_name, parts)
  odd = sorted(set(names) ^ set(wnids))
  if odd:
    raise UserError(
      f'{path} and json/ do not hold the same classes: {len(odd)} differ, '
      f'first {odd[0]}'
    )
  return names


def _discarded(folder: pathlib.Path) -> frozenset[str]:
  """Returns the names of discarded images, as far as they can be read."""
  path = folder / 'discarded_data.json'
  if not path.is_file():
    return frozenset()
  names: set[str] = set()
  waiting = [read_json(path)]
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


def _check_bbox(
  bbox: Any, polygons: tuple, where: str, findings: Findings
) -> None:
  """Warns when a box (x, y, width, height) is not around its polygons."""
  if not polygons or not isinstance(bbox, list) or len(bbox) != 4:
    return
  low = [min(float(p[:, axis].min()) for p in polygons) for axis in (0, 1)]
  high = [max(float(p[:, axis].max()) for p in polygons) for axis in (0, 1)]
  try:
    x, y, width, height = (float(value) for value in bbox)
  except (TypeError, ValueError):
    findings.warn('bbox that is not four numbers', where)
    return
  pairs = zip((x, y, x + width, y + height), low + high, strict=True)
  if not all(abs(a - b) <= _BBOX_TOLERANCE for a, b in pairs):
    findings.warn('bbox away from its polygons', where)
