"""One set of images in every layout: same names, same bytes."""

import io
import os
import pickle
import tarfile

import numpy as np
from PIL import Image
import pytest

from pinpp_jax.data.imagenet import layouts, tars
from pinpp_jax.errors import UnreachableError, UserError

WNIDS = ('n01440764', 'n04026417')


def jpeg(seed, size=(20, 12), **keywords):
  pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3))
  stream = io.BytesIO()
  Image.fromarray(pixels.astype(np.uint8)).save(stream, 'JPEG', **keywords)
  return stream.getvalue()


TRAIN = {
  f'{wnid}/{wnid}_{i}.JPEG': jpeg(10 * k + i)
  for k, wnid in enumerate(WNIDS)
  for i in range(3)
}
VALIDATION = {
  f'{WNIDS[i % 2]}/ILSVRC2012_val_{i + 1:08d}.JPEG': jpeg(50 + i)
  for i in range(4)
}


def write(folder, files):
  for name, data in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def tar(files):
  stream = io.BytesIO()
  with tarfile.open(fileobj=stream, mode='w') as archive:
    for name, data in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))
  return stream.getvalue()


def base(files):
  return {name.split('/')[1]: data for name, data in files.items()}


def train_archive():
  inner = {
    f'{wnid}.tar': tar(
      base({n: d for n, d in TRAIN.items() if n.startswith(wnid)})
    )
    for wnid in WNIDS
  }
  return tar(inner)


TRAIN_LAYOUTS = {
  'folders': lambda f: write(f / 'train', TRAIN),
  'images': lambda f: write(f / 'images', TRAIN),
  'bare': lambda f: write(f, TRAIN),
  'kaggle': lambda f: write(f / 'ILSVRC/Data/CLS-LOC/train', TRAIN),
  'inside': lambda f: write(f / 'imagenet/train', TRAIN),
  'archive': lambda f: write(f, {'ILSVRC2012_img_train.tar': train_archive()}),
}


@pytest.mark.parametrize('layout', TRAIN_LAYOUTS)
def test_training_images_are_the_same_in_every_layout(layout, tmp_path):
  TRAIN_LAYOUTS[layout](tmp_path)
  copy = layouts.open_copy(tmp_path)
  assert copy.splits == ('train',)
  assert copy.wnids() == WNIDS
  assert copy.file_names() == sorted(TRAIN)
  assert copy.file_names(wnids=WNIDS[1:]) == sorted(TRAIN)[3:]
  for again in (copy, pickle.loads(pickle.dumps(copy))):
    for name in reversed(sorted(TRAIN)):
      assert again.read(name) == TRAIN[name]
      assert again.wnid(name) == name[:9]
  with pytest.raises(UserError, match='validation'):
    copy.file_names('validation')
  with pytest.raises(UserError, match='n01440764_77.JPEG'):
    copy.read('n01440764/n01440764_77.JPEG')
  with pytest.raises(UserError, match='n99999999'):
    copy.read('n99999999/n99999999_1.JPEG')


def pairs():
  lines = (f'{name.split("/")[1]} {name[:9]}' for name in VALIDATION)
  return '\n'.join(lines).encode()


def kaggle_labels():
  rows = [f'{n.split("/")[1][:-5]},{n[:9]} 1 2 3 4' for n in VALIDATION]
  return '\n'.join(['ImageId,PredictionString', *rows]).encode()


def official():
  # The devkit's order is not the sorted one.
  order = WNIDS[::-1]
  numbers = [str(order.index(n[:9]) + 1) for n in sorted(VALIDATION, key=stem)]
  return {
    'ILSVRC2012_validation_ground_truth.txt': '\n'.join(numbers).encode(),
    'synsets.txt': '\n'.join(order).encode(),
  }


def stem(name):
  return name.split('/')[1]


VALIDATION_LAYOUTS = {
  'folders': lambda f: write(f / 'val', VALIDATION),
  'flat': lambda f: write(
    f / 'val', {**base(VALIDATION), 'val_labels.txt': pairs()}
  ),
  'kaggle': lambda f: (
    write(f / 'ILSVRC/Data/CLS-LOC/val', base(VALIDATION)),
    write(f / 'ILSVRC', {'LOC_val_solution.csv': kaggle_labels()}),
  ),
  'kaggle above': lambda f: (
    write(f / 'ILSVRC/Data/CLS-LOC/val', base(VALIDATION)),
    write(f, {'LOC_val_solution.csv': kaggle_labels()}),
  ),
  'archive': lambda f: write(
    f, {'ILSVRC2012_img_val.tar': tar(base(VALIDATION)), **official()}
  ),
  'devkit': lambda f: (
    write(f, {'ILSVRC2012_img_val.tar': tar(base(VALIDATION))}),
    write(f / 'ILSVRC2012_devkit_t12/data', official()),
  ),
}


@pytest.mark.parametrize('layout', VALIDATION_LAYOUTS)
def test_validation_images_are_the_same_in_every_layout(layout, tmp_path):
  VALIDATION_LAYOUTS[layout](tmp_path)
  copy = pickle.loads(pickle.dumps(layouts.open_copy(tmp_path)))
  assert copy.splits == ('validation',)
  assert copy.file_names('validation') == sorted(VALIDATION)
  for name, data in VALIDATION.items():
    assert copy.read(name) == data
    assert copy.read(name, 'validation') == data


def test_the_devkits_matlab_file_gives_the_order(tmp_path):
  scipy_io = pytest.importorskip('scipy.io')
  kinds = [('ILSVRC2012_ID', 'O'), ('WNID', 'O')]
  synsets = np.array([(1, WNIDS[1]), (2, WNIDS[0])], kinds)
  stream = io.BytesIO()
  scipy_io.savemat(stream, {'synsets': synsets})
  files = dict(official(), **{'meta.mat': stream.getvalue()})
  del files['synsets.txt']
  devkit = io.BytesIO()
  with tarfile.open(fileobj=devkit, mode='w:gz') as archive:
    for name, data in files.items():
      info = tarfile.TarInfo(f'ILSVRC2012_devkit_t12/data/{name}')
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))
  write(tmp_path, {'ILSVRC2012_devkit_t12.tar.gz': devkit.getvalue()})
  write(tmp_path / 'val', base(VALIDATION))
  copy = layouts.open_copy(tmp_path)
  assert copy.file_names('validation') == sorted(VALIDATION)


def test_an_archive_may_be_named_itself(tmp_path):
  write(tmp_path, {'any.tar': train_archive()})
  copy = layouts.open_copy(tmp_path / 'any.tar')
  assert copy.file_names() == sorted(TRAIN)


def test_missing_labels_and_copies_are_named(tmp_path):
  with pytest.raises(UserError, match='no ImageNet copy'):
    layouts.open_copy(tmp_path)
  write(tmp_path / 'val', base(VALIDATION))
  with pytest.raises(UserError, match='LOC_val_solution.csv'):
    layouts.open_copy(tmp_path).file_names('validation')
  write(tmp_path / 'val', {'val_labels.txt': pairs().split(b'\n')[0]})
  with pytest.raises(UserError, match='has no label'):
    layouts.open_copy(tmp_path).file_names('validation')


@pytest.mark.parametrize('held', ['flat', 'tar'])
def test_a_split_is_opened_when_it_is_needed(held, tmp_path):
  TRAIN_LAYOUTS['folders'](tmp_path)
  if held == 'flat':
    write(tmp_path / 'val', base(VALIDATION))
  else:
    write(tmp_path, {'ILSVRC2012_img_val.tar': b'no tar'})
  copy = layouts.open_copy(tmp_path)
  assert copy.file_names() == sorted(TRAIN)
  with pytest.raises(UserError, match='no labels of the validation images'):
    copy.wnids('validation')


def test_hidden_files_are_no_images(tmp_path):
  odd = {
    f'{WNIDS[0]}/{name}': b'x'
    for name in ('._a.JPEG', '.DS_Store', 'README', '.a.png')
  }
  write(tmp_path / 'folder/train', {**TRAIN, **odd})
  inner = {
    f'{w}.tar': tar(
      base({n: d for n, d in {**TRAIN, **odd}.items() if n.startswith(w)})
    )
    for w in WNIDS
  }
  inner |= {f'._{w}.tar': b'x' for w in WNIDS}
  write(tmp_path, {'any.tar': tar(inner)})
  for place, kept in (('folder', None), ('any.tar', None), ('any.tar', 'kept')):
    folder = kept and tmp_path / kept
    copy = layouts.open_copy(tmp_path / place, folder)
    assert copy.file_names() == sorted(TRAIN)
    assert all(copy.read(name) == TRAIN[name] for name in copy.file_names())


def test_a_pipe_among_the_images_does_not_stop_the_reader(tmp_path):
  TRAIN_LAYOUTS['folders'](tmp_path)
  pipe = f'{WNIDS[0]}/{WNIDS[0]}_9.JPEG'
  os.mkfifo(tmp_path / 'train' / pipe)
  copy = layouts.open_copy(tmp_path)
  assert copy.file_names() == sorted(TRAIN)
  with pytest.raises(UserError, match='no regular file'):
    copy.read(pipe)


@pytest.mark.parametrize(
  ('name', 'content', 'said'),
  [
    ('ILSVRC2012_devkit_t12.tar.gz', b'\x1f\x8b\x08\0', 'devkit_t12.tar.gz'),
    ('ILSVRC2012_devkit_t12.tar.gz', b'', 'devkit_t12.tar.gz'),
    ('val_labels.txt', b'ILSVRC2012_val_00000001 n01440764\na b c', 'line 2'),
    ('val_labels.txt', b'a.JPEG n01440764\n\xff', 'line 2'),
    ('LOC_val_solution.csv', b'ImageId,P\na,n1', 'line 2'),
    ('LOC_val_solution.csv', b'', 'is empty'),
  ],
)
def test_a_damaged_label_file_is_named(name, content, said, tmp_path):
  write(tmp_path, {name: content, 'val/a.JPEG': jpeg(0)})
  with pytest.raises(UserError, match=said):
    layouts.open_copy(tmp_path)


@pytest.mark.parametrize(
  'content',
  [
    pairs(),
    b'\xef\xbb\xbf' + pairs().replace(b'\n', b'\r\n'),
    b'file wnid\n\n' + pairs() + b'\n\n',
    pairs().decode().encode('utf-16'),
    pairs().replace(b' ', b','),
  ],
  ids=['plain', 'mark', 'header', 'utf-16', 'commas'],
)
def test_label_files_are_read_as_people_have_them(content, tmp_path):
  write(tmp_path / 'val', {**base(VALIDATION), 'val_labels.txt': content})
  copy = layouts.open_copy(tmp_path)
  assert copy.file_names('validation') == sorted(VALIDATION)


def test_a_damaged_header_loses_no_image_without_a_word(tmp_path):
  path, data = tmp_path / 'any.tar', train_archive()
  headers = [
    at
    for at in range(0, len(data), 512)
    if data[at + 257 : at + 262] == b'ustar'
  ]
  assert len(headers) == len(TRAIN) + len(WNIDS)
  rng = np.random.default_rng(0)
  for at in headers:
    for offset in rng.integers(0, 512, 8):
      broken = bytearray(data)
      broken[at + offset] ^= 1 << rng.integers(8)
      path.write_bytes(broken)
      with pytest.raises(UserError, match='any.tar'):
        layouts.open_copy(path).file_names()


def test_a_class_with_another_number_of_images_is_named():
  names = [f'n{i:08d}/{j}' for i in range(1000) for j in range(50)]
  assert not layouts.incomplete(names, 'validation')
  assert not layouts.incomplete(names[:100], 'validation')
  assert 'n00000999 49' in layouts.incomplete(names[:-1], 'validation')
  assert '1,281,167' in layouts.incomplete(names, 'train')


def test_archives_cut_short_are_refused(tmp_path):
  data = train_archive()
  write(tmp_path, {'ILSVRC2012_img_train.tar': data[: len(data) // 2]})
  with pytest.raises(UserError, match='img_train.tar'):
    copy = layouts.open_copy(tmp_path)
    for name in copy.file_names():
      copy.read(name)


def open_files(path):
  """Returns how many descriptors of a file this process holds."""
  links = [f'/proc/self/fd/{fd}' for fd in os.listdir('/proc/self/fd')]
  return sum(os.path.exists(x) and os.path.samefile(x, path) for x in links)


def test_a_tar_of_tars_takes_one_descriptor(tmp_path):
  path = tmp_path / 'any.tar'
  path.write_bytes(train_archive())
  copy = layouts.open_copy(path)
  for name in copy.file_names():
    assert copy.read(name) == TRAIN[name]
  assert open_files(path) == 1


def test_the_index_of_a_tar_is_kept_until_the_tar_changes(
  tmp_path, monkeypatch
):
  path, kept = tmp_path / 'any.tar', tmp_path / 'index'
  path.write_bytes(train_archive())
  indexed = []
  index = tars.index
  monkeypatch.setattr(
    tars,
    'index',
    lambda *where, **more: indexed.append(where) or index(*where, **more),
  )

  def opened():
    indexed.clear()
    copy = pickle.loads(pickle.dumps(layouts.open_copy(path, kept)))
    assert copy.file_names() == sorted(TRAIN)
    assert all(copy.read(name) == data for name, data in TRAIN.items())
    # Of the inner tars; the outer one has few headers and is always read.
    return sum(len(where) == 3 for where in indexed)

  assert opened() == len(WNIDS)
  assert opened() == 0
  assert len(pickle.dumps(layouts.open_copy(path, kept))) < 2000
  os.utime(path, ns=(1, 1))
  assert opened() == len(WNIDS)
  assert len(list(kept.iterdir())) == 1


def test_a_tar_that_cannot_be_opened_is_no_damaged_tar(tmp_path):
  path = tmp_path / 'any.tar'
  path.write_bytes(train_archive())
  copy = pickle.loads(pickle.dumps(layouts.open_copy(path)))
  path.rename(tmp_path / 'away.tar')
  with pytest.raises(UnreachableError, match='any.tar .*No such file'):
    copy.read(next(iter(TRAIN)))


@pytest.mark.parametrize(
  'name',
  ['../x.JPEG', 'n01440764/../x.JPEG', '/etc/passwd', 'n01440764/a/b', ''],
)
@pytest.mark.parametrize('layout', ['folders', 'archive'])
def test_names_cannot_leave_the_copy(name, layout, tmp_path):
  TRAIN_LAYOUTS[layout](tmp_path)
  with pytest.raises(UserError, match='no image name'):
    layouts.open_copy(tmp_path).read(name)


def test_check_accepts_what_pillow_decodes_whatever_it_is_called():
  stream = io.BytesIO()
  Image.new('CMYK', (20, 12)).save(stream, 'JPEG')
  assert layouts.check(stream.getvalue(), 20, 12) is None
  stream = io.BytesIO()
  Image.new('RGB', (20, 12)).save(stream, 'PNG')
  assert layouts.check(stream.getvalue(), 20, 12) is None


def test_check_names_what_is_wrong():
  data = jpeg(0)
  exif = Image.Exif()
  exif[0x0112] = 6
  assert 'EXIF' in layouts.check(jpeg(0, exif=exif), 12, 20).detail
  assert layouts.check(jpeg(0, exif=exif), 20, 12) is None
  assert '20 x 12 instead of 30 x 12' in layouts.check(data, 30, 12).detail
  assert 'decoded' in layouts.check(data[: len(data) // 2], 20, 12).detail
  assert 'decoded' in layouts.check(b'', 20, 12).detail
