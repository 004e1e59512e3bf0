"""The TFDS builders, usable with and without TensorFlow.

`datasets/pinpp/` and `datasets/pinpp_mini/` make them known to `tfds build`;
`pinpp_jax.tools.build` calls them directly. Both write the same records.

TFDS's own writer needs TensorFlow as soon as a split is larger than a
gigabyte (its shuffle goes through files). For ArrayRecord the records are
therefore written by `shards.py`, in an order fixed beforehand.
"""

import abc
from collections.abc import Iterator
import contextlib
import fcntl
import itertools
import os
import pathlib
import shutil
import sys
from typing import Any

import tensorflow_datasets as tfds
import tqdm

from pinpp_jax.data import features
from pinpp_jax.data.build import beam_map, prepare, shards
from pinpp_jax.data.build.prepare import Prepared
from pinpp_jax.data.imagenet import layouts
from pinpp_jax.data.mini import drawn_release
from pinpp_jax.data.release import splits
from pinpp_jax.data.release.findings import Findings
from pinpp_jax.data.release.reader import Release
from pinpp_jax.errors import UserError

RELEASE = '1.0.0'
# `tfds build` has no flags for these.
IMAGENET_VARIABLE = 'PINPP_IMAGENET_DIR'
SKIP_VARIABLE = 'PINPP_SKIP_BAD'

_CITATION = """\
@inproceedings{li2024pinpp,
  author    = {Li, Xiao and Liu, Yining and Dong, Na and Qin, Sitian and
               Hu, Xiaolin},
  title     = {{PartImageNet++} Dataset: Scaling up Part-based Models for
               Robust Recognition},
  booktitle = {Computer Vision -- ECCV 2024},
  series    = {LNCS},
  volume    = {15129},
  pages     = {396--414},
  year      = {2024},
  doi       = {10.1007/978-3-031-73209-6_23},
}
"""
_RECORD = (
  'Every record holds the original JPEG bytes, a part mask (8-bit PNG of the '
  "class's own part index, 0 is background), the class, the file name, who "
  'drew the mask, and the COCO annotations as JSON. labels.json maps the '
  'indices to parts, splits.json lists the images of every split.'
)


class PartBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """What both data sets share: features, checking, painting, writing."""

  name = 'part_builder'
  VERSION = tfds.core.Version(RELEASE)
  RELEASE_NOTES = {RELEASE: 'First version.'}
  # Nothing is downloaded. TFDS would look for checksums beside this file, and
  # needs importlib_resources to do so.
  url_infos = None
  DESCRIPTION = ''
  CITATION = ''
  HOMEPAGE = ''
  COPY = ''  # where the images are, seen from the release

  def __init__(
    self,
    *,
    imagenet_dir: str = '',
    skip_bad: bool | None = None,
    file_format: Any = None,
    **keywords: Any,
  ):
    """Makes a builder; without `file_format` it writes ArrayRecord.

    Args:
      imagenet_dir: the ImageNet copy; by default for pinpp that of
        PINPP_IMAGENET_DIR, or else the release's folder.
      skip_bad: leaves broken entries out and counts them instead of refusing;
        by default PINPP_SKIP_BAD.
      file_format: of the records, as TFDS names them.
      **keywords: of every TFDS builder.
    """
    self._imagenet_dir = imagenet_dir
    if skip_bad is None:
      skip_bad = os.environ.get(SKIP_VARIABLE, '0') not in ('', '0')
    self._skip_bad = skip_bad
    self.prepared: Prepared | None = None
    self._each: Any = map
    super().__init__(file_format=file_format or 'array_record', **keywords)

  def _info(self) -> tfds.core.DatasetInfo:
    # Both are completed by a build: the classes are those of the release.
    self._label = tfds.features.ClassLabel()
    self._facts = tfds.core.MetadataDict()
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'{self.DESCRIPTION}\n\n{_RECORD}',
      features=tfds.features.FeaturesDict(features.of_record(self._label)),
      homepage=self.HOMEPAGE,
      citation=self.CITATION,
      metadata=self._facts,
    )

  @abc.abstractmethod
  def _folder(self, dl_manager: tfds.download.DownloadManager) -> pathlib.Path:
    """Returns the folder in the release's layout."""

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    folder = self._folder(dl_manager)
    # During a build `data_path` is the temporary folder, so nothing of this
    # survives unless the build succeeds.
    version_folder = pathlib.Path(self.data_path)
    findings = Findings(skip_bad=self._skip_bad)
    release = Release(folder, findings)
    copy = layouts.open_copy(self._imagenet_dir or folder / self.COPY)
    copy.wnids('train')  # What is wrong with these images is said first.
    self.prepared = done = prepare.prepare(
      release,
      copy,
      version_folder / 'spool.tmp',
      lambda wnids: _progress(wnids, len(wnids), 'Checking', ' classes'),
      self._each,
    )
    self._label.names = list(done.labels.wnids)
    self._facts.update(done.summary())
    done.labels.save(version_folder / 'labels.json')
    splits.save(version_folder, done.split, done.rule)
    return {
      name: self._generate_examples(names)
      for name, names in done.split.items()
      if names
    }

  def _generate_examples(self, file_names: tuple[str, ...]):
    assert self.prepared is not None
    for record in self.prepared.records(file_names):
      yield record['file_name'], record

  def _generate_splits(self, dl_manager, download_config):
    """Returns the infos of the splits it has written."""
    with _only_build(pathlib.Path(self.data_path)):
      try:
        if self.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
          return super()._generate_splits(dl_manager, download_config)
        if download_config.beam_options is not None:
          self._each = beam_map.mapper(
            self.data_path,
            download_config.beam_options,
            download_config.beam_runner,
          )
        self._split_generators(dl_manager)
        return self._write(download_config)
      finally:
        (pathlib.Path(self.data_path) / 'spool.tmp').unlink(missing_ok=True)

  def _write(
    self, config: tfds.download.DownloadConfig
  ) -> list[tfds.core.SplitInfo]:
    """Writes all splits."""
    assert self.prepared is not None
    limit = config.max_examples_per_split
    templates = {
      name: self._get_filename_template(split_name=name)
      for name, names in self.prepared.split.items()
      if names
    }
    planned = {
      name: shards.plan(
        self.prepared, self.prepared.split[name][:limit], template
      )
      for name, template in templates.items()
    }
    every = list(itertools.chain(*planned.values()))
    steps = _progress(every, len(every), 'Writing', ' shards')
    sizes = self._each(shards.write, steps)
    of_path = {s.path: size for s, size in zip(every, sizes, strict=True)}
    return [
      tfds.core.SplitInfo(
        name=name,
        shard_lengths=[len(shard.names) for shard in planned[name]],
        num_bytes=sum(of_path[shard.path] for shard in planned[name]),
        filename_template=template,
      )
      for name, template in templates.items()
    ]


class Pinpp(PartBuilder, skip_registration=True):
  """PartImageNet++: the release joined with an ImageNet copy."""

  name = 'pinpp'
  HOMEPAGE = 'https://huggingface.co/datasets/lixiao20/PartImageNetPP'
  CITATION = _CITATION
  DESCRIPTION = (
    'PartImageNet++: part annotations of images of the ImageNet-1K training '
    'set, joined with a copy of these images. The images are not part of the '
    'release and are subject to the terms of ImageNet. All of them, the test '
    'split too, are training images of ImageNet-1K: accuracy measured on them '
    'says nothing about a model that was trained on ImageNet.'
  )
  MANUAL_DOWNLOAD_INSTRUCTIONS = f"""\
  Put the PartImageNet++ release into the manual folder, or into `pinpp/` in it:
  json/, including/, category_name.json and discarded_data.json from
  https://huggingface.co/datasets/lixiao20/PartImageNetPP, and beside them your
  ImageNet copy: train/<wnid>/*.JPEG, images/<wnid>/, Kaggle's
  ILSVRC/Data/CLS-LOC/train/ or ILSVRC2012_img_train.tar. A copy elsewhere is
  named by the environment variable {IMAGENET_VARIABLE}.
  """

  def __init__(self, *, imagenet_dir: str = '', **keywords: Any):
    """Makes a builder; see PartBuilder."""
    place = imagenet_dir or os.environ.get(IMAGENET_VARIABLE, '')
    super().__init__(imagenet_dir=place, **keywords)

  def _folder(self, dl_manager: tfds.download.DownloadManager) -> pathlib.Path:
    try:
      manual = pathlib.Path(dl_manager.manual_dir)
    except AssertionError as error:
      raise UserError(' '.join(str(error).split())) from error
    inner = manual / self.name
    return (
      inner if not (manual / 'json').is_dir() and inner.is_dir() else manual
    )


class PinppMini(PartBuilder, skip_registration=True):
  """The drawn data set in the same layout; nothing has to be fetched."""

  name = 'pinpp_mini'
  DESCRIPTION = (
    'A small drawn data set in the layout of PartImageNet++, for trying things '
    'out and for tests. It holds no photograph.'
  )
  COPY = 'imagenet'
  RENDER: dict[str, int] = {}  # keywords of pinpp_jax.data.mini.render

  def _folder(self, dl_manager: tfds.download.DownloadManager) -> pathlib.Path:
    folder = mini_folder(self.data_dir_root)
    if not folder.exists():
      folder.parent.mkdir(parents=True, exist_ok=True)
      drawn_release.render(folder, **self.RENDER)
    return folder


BUILDERS = {'pinpp': Pinpp, 'pinpp_mini': PinppMini}


def mini_folder(data_dir: str | os.PathLike[str]) -> pathlib.Path:
  """Returns where the drawn release lies, as if it had been downloaded."""
  return pathlib.Path(data_dir) / 'downloads' / 'manual' / 'pinpp_mini'


def _progress(steps, total: int, title: str, unit: str):
  """Returns the steps behind a bar; in a log, a line every half minute."""
  return tqdm.tqdm(
    steps,
    total=total,
    desc=title,
    unit=unit,
    mininterval=0.2 if sys.stderr.isatty() else 30.0,
  )


@contextlib.contextmanager
def _only_build(folder: pathlib.Path) -> Iterator[None]:
  """Keeps two builds apart and removes what killed ones have left.

  `folder` is TFDS's temporary '<version>.incomplete...' folder.
  """
  handle = os.open(folder.parent, os.O_RDONLY)
  try:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise UserError(
        f'another build is writing to {folder.parent}; wait for it to end'
      ) from error
    except OSError:
      yield  # a file system without locks: leave everything as it is
      return
    for other in folder.parent.iterdir():
      if 'incomplete' in other.name and other != folder and other.is_dir():
        shutil.rmtree(other)
    yield
  finally:
    os.close(handle)
