"""The embedded data set `pinpp_mini`: the PIN++ release made small, and drawn.

Real PIN++ needs ImageNet. This renders, from a seed, a data set in the same
layout, together with its images, so that everything can run anywhere. Its
objects are told by their parts and by how these are arranged; colours are no
help. Most training images also carry a shortcut: a faint background texture
that agrees with the class. In validation images it belongs to another class.
"""

from collections.abc import Iterator
import dataclasses
import io
import json
import os
import pathlib
import shutil

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from pinpp_jax.data.mini import scene as scene_lib
from pinpp_jax.data.mini import shapes, trace
from pinpp_jax.data.mini.scene import Scene
from pinpp_jax.data.mini.shapes import Kind
from pinpp_jax.errors import UserError

AGREEMENT = 0.85  # of the training images have their own class's texture
JPEG_QUALITY = 90

README = """\
pinpp_mini: {classes} drawn object classes in the layout of PartImageNet++.

Rendered by pinpp_jax.data.mini.render(seed={seed}); no photograph and no part
of ImageNet or PartImageNet++ is in it.

json/<wnid>.json         images, part polygons and parts of a class (COCO style)
including/<wnid>.txt     which part lies inside which (child:parent)
category_name.json       objects and their parts
discarded_data.json      images left out of the annotation, and why
imagenet/train/<wnid>/   {annotated} annotated and {unannotated} other images \
per class, and the discarded ones
imagenet/val/<wnid>/     {validation} images per class
truth/<wnid>/            part masks of all images without annotation, kept
                         aside: 0 background, then the parts in the order of
                         `categories`

In {agreement} of the training images the background's texture agrees with
the class; in the validation images it is always that of another class.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Class:
  """A class with its place among the others, and how its images are made."""

  number: int
  kind: Kind
  seed: int
  size: int

  @property
  def wnid(self) -> str:
    # Real wnids end below n16000000.
    return f'n99{self.number + 1:06d}'

  @property
  def names(self) -> list[str]:
    return [self.kind.full_name(part) for part in self.kind.parts]

  def scene(self, group: int, index: int, *, spoilt: bool = False) -> Scene:
    """Image `index` of a group (0 training, 1 validation, 2 discarded).

    It depends on nothing else: not on how many images or classes there are.
    """
    rng = np.random.default_rng((self.seed, self.number, group, index))
    background = self.number
    if group == 1 or rng.random() >= AGREEMENT:
      others = len(scene_lib.PATTERNS) - 1
      background = (background + 1 + int(rng.integers(others))) % (others + 1)
    return scene_lib.draw(
      self.kind, rng=rng, size=self.size, background=background, spoilt=spoilt
    )


def render(
  folder: str | os.PathLike[str],
  *,
  seed: int = 0,
  annotated: int = 40,
  unannotated: int = 160,
  validation: int = 30,
  size: int = 96,
  classes: int = 12,
) -> None:
  """Renders the data set into a new folder.

  Written beside the folder and renamed at the end, so the folder is whole or
  absent. The same arguments give the same bytes; an image does not depend on
  how many are rendered.

  Args:
    folder: where; must not hold anything yet.
    seed: of everything drawn; not negative.
    annotated: training images with part polygons, per class.
    unannotated: training images without, per class.
    validation: validation images, per class.
    size: side of the square images in pixels.
    classes: how many of the 12 classes.

  Raises:
    UserError: the folder is taken, or a number is out of range.
  """
  folder = pathlib.Path(folder)
  counts = dict(
    seed=seed,
    annotated=annotated,
    unannotated=unannotated,
    validation=validation,
    size=size,
    classes=classes,
  )
  _check(folder, counts)
  folder.parent.mkdir(parents=True, exist_ok=True)
  partial = folder.parent / f'.{folder.name}.partial-{os.getpid()}'
  shutil.rmtree(partial, ignore_errors=True)
  try:
    _write(partial, **counts)
    partial.replace(folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _check(folder: pathlib.Path, counts: dict[str, int]) -> None:
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise UserError(
      f'{folder} exists already: remove it or render into another folder'
    )
  limits = dict(
    seed=(0, None),
    annotated=(1, None),
    unannotated=(0, None),
    validation=(0, None),
    size=(32, 1024),
    classes=(1, len(shapes.KINDS)),
  )
  for name, (low, high) in limits.items():
    if counts[name] < low or (high is not None and counts[name] > high):
      bound = f'at least {low}' if high is None else f'from {low} to {high}'
      raise UserError(f'{name} must be {bound}, not {counts[name]}')


def _write(
  folder: pathlib.Path,
  *,
  seed: int,
  annotated: int,
  unannotated: int,
  validation: int,
  size: int,
  classes: int,
) -> None:
  """Writes the whole data set into `folder`."""
  table = [
    _Class(number=number, kind=kind, seed=seed, size=size)
    for number, kind in enumerate(shapes.KINDS[:classes])
  ]
  spoilt = max(1, annotated // 20)
  discarded = []
  for one in table:
    _write_annotated(folder, one, annotated)
    _write_unannotated(folder, one, range(annotated, annotated + unannotated))
    discarded += _write_discarded(folder, one, annotated + unannotated, spoilt)
    _write_validation(folder, one, validation)
    if one.kind.inside:
      lines = [f'{child}:{parent}' for child, parent in one.kind.inside.items()]
      _put(folder / f'including/{one.wnid}.txt', '\r\n'.join(lines).encode())
  names = [
    {
      'file name': f'{one.wnid}.json',
      'object name': one.kind.name,
      'part name': one.names,
    }
    for one in table
  ]
  _put(folder / 'category_name.json', json.dumps(names, indent=1).encode())
  _put(folder / 'discarded_data.json', json.dumps(discarded, indent=1).encode())
  text = README.format(
    classes=classes,
    seed=seed,
    annotated=annotated,
    unannotated=unannotated,
    validation=validation,
    agreement=f'{100 * AGREEMENT:.0f} %',
  )
  _put(folder / 'README.md', text.encode())


def _write_annotated(folder: pathlib.Path, one: _Class, count: int) -> None:
  """The first `count` training images and the class's file."""
  images, annotations = [], []
  # The release's order is neither by name nor by number; nor is this one.
  order = np.random.default_rng((one.seed, one.number)).permutation(count)
  for place, index in enumerate(order.tolist(), start=1):
    scene = one.scene(0, index)
    name = f'{one.wnid}/{one.wnid}_{index + 1}.JPEG'
    _put(folder / 'imagenet/train' / name, _jpeg(scene.image))
    images.append(
      {'id': place, 'width': one.size, 'height': one.size, 'file_name': name}
    )
    for entry in _entries(one.kind, scene):
      identity = {'id': len(annotations) + 1, 'image_id': place}
      annotations.append(identity | entry)
  categories = [
    {'id': place, 'name': name, 'supercategory': one.kind.name}
    for place, name in enumerate(one.names, start=1)
  ]
  content = dict(images=images, annotations=annotations, categories=categories)
  _put(folder / f'json/{one.wnid}.json', json.dumps(content).encode())


def _write_unannotated(
  folder: pathlib.Path, one: _Class, indices: range
) -> None:
  """Training images without annotation, and their truth."""
  for index in indices:
    scene = one.scene(0, index)
    stem = f'{one.wnid}/{one.wnid}_{index + 1}'
    _put(folder / f'imagenet/train/{stem}.JPEG', _jpeg(scene.image))
    _put(folder / f'truth/{stem}.png', _png(local_mask(one.kind, scene)))


def _write_discarded(
  folder: pathlib.Path, one: _Class, before: int, count: int
) -> list[dict[str, str]]:
  """Images too poor to annotate, their truth, and their list."""
  entries = []
  for index in range(count):
    scene = one.scene(2, index, spoilt=True)
    stem = f'{one.wnid}/{one.wnid}_{before + index + 1}'
    _put(folder / f'imagenet/train/{stem}.JPEG', _jpeg(scene.image))
    _put(folder / f'truth/{stem}.png', _png(local_mask(one.kind, scene)))
    entries.append({'file_name': f'{stem}.JPEG', 'reason': 'blurred'})
  return entries


def _write_validation(folder: pathlib.Path, one: _Class, count: int) -> None:
  """Validation images, named without their class, and their truth."""
  for index in range(count):
    scene = one.scene(1, index)
    stem = f'{one.wnid}/mini_val_{one.number:03d}{index + 1:05d}'
    _put(folder / f'imagenet/val/{stem}.JPEG', _jpeg(scene.image))
    _put(folder / f'truth/{stem}.png', _png(local_mask(one.kind, scene)))


def local_mask(kind: Kind, scene: Scene) -> np.ndarray:
  """Uint8 (size, size): 0 or the part's place, from 1, in `kind.parts`."""
  places = [0] + [1 + kind.parts.index(shape.part) for shape in scene.shapes]
  return np.array(places, dtype=np.uint8)[scene.instance]


def _entries(kind: Kind, scene: Scene) -> Iterator[dict[str, object]]:
  """COCO annotations of a scene; a part's region covers what it contains."""
  for position, shape in enumerate(scene.shapes):
    mask = scene.visible(position)
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    yield {
      'category_id': 1 + kind.parts.index(shape.part),
      'segmentation': trace.polygons(mask),
      'area': float(coco.area(encoded)),
      'bbox': [float(value) for value in coco.toBbox(encoded)],
      'iscrowd': 0,
    }


def _jpeg(image: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'JPEG', quality=JPEG_QUALITY)
  return buffer.getvalue()


def _png(mask: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(mask).save(buffer, 'PNG')
  return buffer.getvalue()


def _put(path: pathlib.Path, content: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
