"""A tiny built data set, written as the builders write theirs."""

import io
import pathlib

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from pinpp_jax.data.labels import LabelTable, Part
from pinpp_jax.data.release import splits

WNIDS = ('n00000001', 'n00000002', 'n00000003')
PARTS = (2, 3, 0)  # Parts of each class: the last has none.
SIZES = {'train': 12, 'validation': 5, 'test': 4}


def labels() -> LabelTable:
  parts = []
  for wnid, count in zip(WNIDS, PARTS, strict=True):
    for local in range(1, count + 1):
      parts.append(
        Part(
          global_id=len(parts) + 1,
          wnid=wnid,
          object_name=f'object {wnid}',
          name=f'{wnid} part {local}',
          generic_name=f'part {local}',
          local_index=local,
        )
      )
  return LabelTable(
    wnids=WNIDS,
    object_names=tuple(f'object {wnid}' for wnid in WNIDS),
    parts=tuple(parts),
  )


def file_name(split: str, i: int) -> str:
  wnid = WNIDS[i % len(WNIDS)]
  return f'{wnid}/{wnid}_{list(SIZES).index(split) * 100 + i}.JPEG'


def picture(seed: int, size: tuple[int, int]) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (size[1], size[0], 3), np.uint8)


def local_mask(seed: int, size: tuple[int, int], parts: int) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.integers(0, parts + 1, (size[1], size[0]), np.uint8)


def encoded(array: np.ndarray, kind: str) -> bytes:
  stream = io.BytesIO()
  Image.fromarray(array).save(stream, kind)
  return stream.getvalue()


def record(split: str, i: int) -> dict[str, object]:
  size = (40 + 7 * i, 50 + 3 * (i % 4))
  label = i % len(WNIDS)
  return {
    'image': encoded(picture(i, size), 'JPEG'),
    'part_mask': encoded(local_mask(i, size, PARTS[label]), 'PNG'),
    'label': label,
    'wnid': WNIDS[label],
    'file_name': file_name(split, i),
    'source': ('human', 'pseudo', 'none')[label],
    'annotations': f'[{{"id": {i}}}]',
    'confidence': i / 10,
  }


class Pinpp(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version('1.0.0')
  # Without this TFDS looks for checksums beside this file.
  url_infos = {}

  def _info(self):
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(encoding_format='jpeg'),
          'part_mask': tfds.features.Image(
            shape=(None, None, 1), encoding_format='png'
          ),
          'label': tfds.features.ClassLabel(num_classes=len(WNIDS)),
          'wnid': text,
          'file_name': text,
          'source': text,
          'annotations': text,
          'confidence': np.float32,
        }
      ),
    )

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(split) for split in SIZES}

  def _generate_examples(self, split):
    for i in range(SIZES[split]):
      one = record(split, i)
      for key in ('image', 'part_mask'):
        one[key] = io.BytesIO(one[key])
      yield one['file_name'], one


def write(data_dir: pathlib.Path) -> pathlib.Path:
  """Builds the data set; returns its version folder."""
  builder = Pinpp(data_dir=str(data_dir), file_format='array_record')
  builder.download_and_prepare()
  folder = data_dir / 'pinpp' / '1.0.0'
  labels().save(folder / 'labels.json')
  split = {
    name: tuple(file_name(name, i) for i in range(size))
    for name, size in SIZES.items()
  }
  splits.save(folder, split, 'for a test')
  return folder
