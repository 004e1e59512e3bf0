"""Thousands of damaged files: each gives a result, a finding or a UserError.

Seeded; every reader gets the same few seconds of mutations.
"""

import contextlib
import io
import json
import pathlib
import resource
import shutil
import tarfile
import time

import numpy as np
import pytest

from pinpp_jax.data.imagenet import layouts, val_labels
from pinpp_jax.data.labels import LabelTable, from_classes
from pinpp_jax.data.read import lists
from pinpp_jax.data.release import splits
from pinpp_jax.data.release.findings import Findings
from pinpp_jax.data.release.reader import Release
from pinpp_jax.errors import UserError
from pinpp_jax.models.torch import files
from pinpp_jax.runs import rundir

pytestmark = pytest.mark.slow

DUMMY = pathlib.Path(__file__).parents[1] / 'datasets' / 'pinpp' / 'dummy_data'
WNID = 'n01440764'
NUMBER = 2000  # Mutations for each reader.
ODD = (
  *(None, True, -1, 0, 1e308, 10**4000, float('inf'), float('nan'), 2**63),
  *('', '../../x', '/tmp/x', 'n\u0303', 'x' * 9999, '1' * 5000, '\ud800'),
  *([], {}, [[]], {'counts': 'o' * 9999, 'size': [1, 1]}, [1e308] * 7),
)


def mutated_bytes(data, rng):
  """Returns bytes cut, flipped, doubled or overwritten somewhere."""
  data, at = bytearray(data), int(rng.integers(max(len(data), 1)))
  match rng.integers(5):
    case 0:
      return bytes(data[:at])
    case 1 if data:
      data[at] ^= 1 << rng.integers(8)
    case 2:
      data[at:at] = data[at : at + 50]
    case 3:
      data[at : at + 8] = rng.bytes(8)
    case _:
      data[at:at] = rng.choice([b'\0', b'\xff', b'"', b'\r\n', b'[', b'9' * 99])
  return bytes(data)


def mutated_json(value, rng):
  """Returns JSON text with one place replaced, removed or doubled."""
  value = json.loads(json.dumps(value))
  spot = value
  while isinstance(spot, dict | list) and spot:
    keys = list(spot) if isinstance(spot, dict) else range(len(spot))
    key = keys[rng.integers(len(keys))]
    if not isinstance(spot[key], dict | list) or rng.random() < 0.25:
      spot[key] = ODD[rng.integers(len(ODD))]
      break
    spot = spot[key]
  with contextlib.suppress(ValueError):
    return json.dumps(value).encode()
  return b'{}'


def survive(read, mutations):
  """Calls `read` with everything; returns how often it refused.

  Raises whatever is no UserError; no read may take seconds, and all together
  no more than 2 GiB.
  """
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  refused = 0
  for content in mutations:
    start = time.monotonic()
    try:
      read(content)
    except UserError as error:
      assert '\n' not in str(error).strip() and len(str(error)) < 5000
      refused += 1
    # Not how fast it is, but that it ends.
    assert time.monotonic() - start < 20
  used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  assert used < 2 << 20  # KiB
  return refused


def both(data, value=None, number=NUMBER):
  """Yields mutations of a file's bytes, and of the JSON in it."""
  rng = np.random.default_rng(0)
  for i in range(number):
    if value is not None and i % 2:
      yield mutated_json(value, rng)
    else:
      yield mutated_bytes(data, rng)


@pytest.fixture
def folder(tmp_path):
  """A folder of its own; nothing may appear beside it."""
  inside = tmp_path / 'inside'
  inside.mkdir()
  yield inside
  assert list(tmp_path.iterdir()) == [inside]


@pytest.mark.parametrize(
  'name', [f'json/{WNID}.json', 'category_name.json', f'including/{WNID}.txt']
)
def test_release(folder, name):
  release = folder / 'release'
  shutil.copytree(DUMMY, release)
  path = release / name
  data = path.read_bytes()

  def read(content):
    path.write_bytes(content)
    # Collecting and refusing are two ways through the same guards.
    findings = Findings(collect=True)
    with contextlib.suppress(UserError):
      Release(release, findings).load(WNID)
    Release(release, Findings()).load(WNID)

  value = json.loads(data) if path.suffix == '.json' else None
  assert survive(read, both(data, value)) > NUMBER / 10


def test_label_table(folder):
  path = folder / 'labels.json'
  from_classes(Release(DUMMY, Findings())).save(path)
  data = path.read_bytes()

  def read(content):
    path.write_bytes(content)
    LabelTable.load(path)

  assert survive(read, both(data, json.loads(data))) > NUMBER / 2


def test_split_file(folder):
  path = folder / splits.FILE
  splits.save(folder, {'train': ['n1/a', 'n1/b'], 'test': ['n1/c']}, 'a rule')
  data = path.read_bytes()

  def read(content):
    path.write_bytes(content)
    splits.load(folder)

  assert survive(read, both(data, json.loads(data))) > NUMBER / 10


def archive(members):
  stream = io.BytesIO()
  with tarfile.open(fileobj=stream, mode='w') as tar:
    for name, data in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
  return stream.getvalue()


def test_imagenet_listing(folder):
  images = {f'{WNID}_{i}.JPEG': bytes([i]) * 700 for i in range(4)}
  path = folder / 'any.tar'
  data = archive({f'{WNID}.tar': archive(images)})

  def read(content):
    path.write_bytes(content)
    copy = layouts.open_copy(path)
    for name in copy.file_names():
      copy.read(name)

  rng = np.random.default_rng(0)
  heads = [
    at for at in range(0, len(data), 512) if data[at + 257 :][:1] == b'u'
  ]

  def in_headers():
    for _ in range(NUMBER):
      content = bytearray(data)
      content[heads[rng.integers(len(heads))] + rng.integers(512)] ^= 1
      yield bytes(content)

  # The one place where a flipped bit says the same: letters in octal numbers.
  assert survive(read, in_headers()) > 0.95 * NUMBER
  assert survive(read, both(data)) > NUMBER / 10


@pytest.mark.parametrize(
  ('name', 'data'),
  [
    ('val_labels.txt', b'a.JPEG n01440764\nb.JPEG n01440764\n' * 3),
    ('LOC_val_solution.csv', b'ImageId,PredictionString\na,n01440764 1 2\n'),
    ('ILSVRC2012_devkit_t12.tar.gz', b'\x1f\x8b\x08\x00' + b'x' * 300),
  ],
)
def test_label_files(folder, name, data):
  path = folder / name

  def read(content):
    path.write_bytes(content)
    val_labels.find(folder)

  assert survive(read, both(data)) > NUMBER / 10


def test_image_list(folder):
  path = folder / 'list.txt'
  data = b''.join(b'n01440764/ILSVRC2012_val_%08d.JPEG\n' % i for i in range(9))

  def read(content):
    path.write_bytes(content)
    lists.read(path, name='mine')

  assert survive(read, both(data)) > NUMBER / 10


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_weights(folder, suffix):
  torch = pytest.importorskip('torch')
  safetensors = pytest.importorskip('safetensors.torch')
  path = folder / f'x{suffix}'
  tensors = {
    'module.fc.weight': torch.ones(3, 4),
    'n_averaged': torch.tensor(1),
  }
  if suffix == '.pth':
    torch.save(tensors, path)
  else:
    safetensors.save_file(tensors, path)
  data = path.read_bytes()

  def read(content):
    path.write_bytes(content)
    files.read_file(path)

  assert survive(read, both(data)) > NUMBER / 10


def test_run_folder(folder):
  config = {'run': 'train', 'data': {'name': 'x'}, 'model': {'name': 'resnet'}}
  path = folder / 'config.json'
  data = json.dumps(config).encode()

  def read(content):
    path.write_bytes(content)
    rundir.recipe_of(folder)

  survive(read, both(data, config))
