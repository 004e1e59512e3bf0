"""Encoders against numbers recorded from timm, and their own promises.

record_timm.py beside this file records the numbers.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.errors import UserError
from pinpp_jax.models import convnext, cpu_forms, layers, resnet, vit
from pinpp_jax.models.torch import exporter, importer
from pinpp_jax.models.torch import names as names_lib

FOLDER = pathlib.Path(__file__).parent / 'timm_golden'

resnet50 = functools.partial(resnet.Backbone, depth=50, width=3)
resnet18 = functools.partial(resnet.Backbone, depth=18, width=3)
tiny_convnext = functools.partial(
  convnext.ConvNeXt, width=8, depths=(1, 1, 2, 1)
)
tiny_vit = functools.partial(vit.ViT, width=16, depth=8, heads=2, grid=5)

# Networks that compile quickly, one of each kind.
EVERY = [
  pytest.param(resnet.Backbone(depth=10, width=4), id='resnet'),
  pytest.param(convnext.ConvNeXt(width=8, depths=(1, 1, 1, 1)), id='convnext'),
  pytest.param(vit.ViT(width=16, depth=4, heads=2, grid=5), id='vit'),
]


def load(file):
  with np.load(FOLDER / f'{file}.npz') as numbers:
    return dict(numbers)


def weights_of(recorded):
  start = 'weights/'
  return {
    name.removeprefix(start): value.astype(np.float32)
    for name, value in recorded.items()
    if name.startswith(start)
  }


def abstract(encoder, *size):
  init = functools.partial(encoder.init, train=False)
  image = jax.ShapeDtypeStruct((1, *(size or (64, 64)), 3), jnp.float32)
  return jax.eval_shape(init, jax.random.key(0), image)


def random_tensors(encoder):
  rng = np.random.default_rng(0)

  def fill(shape):
    if len(shape) == 1:  # Positive, for the variances among them.
      return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = (2 / np.prod(shape[1:])) ** 0.5
    return (scale * rng.normal(size=shape)).astype(np.float32)

  return {
    name: fill(entry.shape)
    for name, entry in names_lib.encoder_entries(encoder).items()
  }


def encode(encoder, variables, image):
  return jax.jit(functools.partial(encoder.apply, train=False))(
    variables, image
  )


@pytest.mark.parametrize(
  'file, case, encoder',
  [
    ('resnet50', 'stride32', resnet50()),
    ('resnet50', 'stride16', resnet50(output_stride=16)),
    ('resnet50', 'stride8', resnet50(output_stride=8)),
    ('resnet18', 'stride16', resnet18(output_stride=16)),
    ('resnet18', 'stride8', resnet18(output_stride=8)),
    ('convnext', 'plain', tiny_convnext()),
    ('vit', 'own', tiny_vit()),
    ('vit', 'other', tiny_vit()),
    ('vit', 'cut', tiny_vit()),
  ],
  ids=lambda value: value if isinstance(value, str) else '',
)
def test_features_are_timms(file, case, encoder):
  recorded = load(file)
  variables = importer.encoder_variables(encoder, weights_of(recorded))
  image = recorded[f'{case}/image'] / np.float32(255)
  features = encode(encoder, variables, image)
  assert len(features) == 4
  for i, feature in enumerate(features):
    expected = recorded[f'{case}/feature{i}']
    assert feature.dtype == jnp.float32
    # Most lie within 2e-6; torch's own rounding of the positions between
    # pixels, where an image is resized, makes 2e-5.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(feature, expected, rtol=0, atol=5e-5 * scale)


@pytest.mark.parametrize(
  'encoder, expected',
  [
    (resnet.Backbone(depth=50), 23_508_032),
    (convnext.ConvNeXt(size='tiny'), 27_818_592),
    (convnext.ConvNeXt(size='small'), 49_453_152),
    (convnext.ConvNeXt(size='base'), 87_564_416),
    (vit.ViT(size='small'), 22_056_192),
    (vit.ViT(size='base'), 86_579_712),
  ],
)
def test_parameter_counts_are_timms(encoder, expected):
  leaves = jax.tree.leaves(abstract(encoder)['params'])
  assert sum(value.size for value in leaves) == expected


def test_published_transformers_have_heads_of_64_channels():
  assert vit.ViT(size='small').shape() == (384, 12, 6)
  assert vit.ViT(size='base').shape() == (768, 12, 12)


@pytest.mark.parametrize('encoder', EVERY)
def test_import_and_export_are_inverse(encoder):
  tensors = random_tensors(encoder)
  variables = importer.encoder_variables(encoder, tensors)
  shape = lambda leaf: (leaf.shape, leaf.dtype)
  expected = {'batch_stats': {}} | abstract(encoder)
  assert jax.tree.map(shape, variables) == jax.tree.map(shape, expected)
  back = exporter.encoder_tensors(encoder, variables)
  for name, value in tensors.items():
    np.testing.assert_array_equal(back.pop(name), value)
  assert all(name.endswith('num_batches_tracked') for name in back)


@pytest.mark.parametrize('encoder', EVERY)
def test_only_what_does_not_fit_is_refused(encoder):
  tensors = random_tensors(encoder)
  besides = {
    name: np.zeros(3, np.float32) for name in names_lib.besides(encoder)
  }
  assert besides
  jax.tree.map(
    np.testing.assert_array_equal,
    importer.encoder_variables(encoder, tensors | besides),
    importer.encoder_variables(encoder, tensors),
  )
  *_, gone, changed = tensors
  del tensors[gone]
  tensors[changed] = np.zeros((2, 3), np.float32)
  tensors['extra.weight'] = np.zeros((2, 3), np.float32)
  with pytest.raises(UserError) as error:
    importer.encoder_variables(encoder, tensors)
  message = str(error.value)
  assert f'missing from the file: {gone} ' in message
  assert 'left over in the file: extra.weight (2, 3)' in message
  assert f'wrong shape: {changed} (2, 3), expected' in message


def test_other_modules_have_no_names():
  with pytest.raises(UserError, match='Linear'):
    names_lib.encoder_entries(layers.Linear(3))


@pytest.mark.parametrize('stride, cells', [(32, 2), (16, 4), (8, 8)])
@pytest.mark.parametrize('depth', [18, 50])
def test_dilation_keeps_the_size_and_the_variables(depth, stride, cells):
  encoder = resnet.Backbone(depth=depth, width=4, output_stride=stride)
  assert abstract(encoder) == abstract(encoder.clone(output_stride=32))
  apply = functools.partial(encoder.apply, train=False)
  image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  features = jax.eval_shape(apply, abstract(encoder), image)
  first = 4 * (4 if depth == 50 else 1)
  assert [feature.shape for feature in features] == [
    (2, max(n, cells), max(n, cells), first * 2**i)
    for i, n in enumerate((16, 8, 4, 2))
  ]


@pytest.mark.parametrize(
  'encoder, expected',
  [
    (tiny_convnext(), [(24, 16, 8), (12, 8, 16), (6, 4, 32), (3, 2, 64)]),
    (tiny_vit(), [(28, 20, 16), (14, 10, 16), (7, 5, 16), (4, 3, 16)]),
  ],
)
def test_shapes(encoder, expected):
  apply = functools.partial(encoder.apply, train=False)
  image = jax.ShapeDtypeStruct((2, 96, 64, 3), jnp.float32)
  features = jax.eval_shape(apply, abstract(encoder), image)
  assert [feature.shape for feature in features] == [
    (2, *shape) for shape in expected
  ]


def test_other_sizes_are_resized_to_whole_patches(key):
  encoder = tiny_vit(depth=4)
  variables = importer.encoder_variables(encoder, random_tensors(encoder))
  image = jax.random.uniform(key, (1, 63, 90, 3))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5),
    encode(encoder, variables, image),
    encode(encoder, variables, layers.resize(image, 70, 84)),
  )


@pytest.mark.parametrize('encoder', EVERY)
def test_an_image_is_encoded_alone(encoder, key):
  variables = importer.encoder_variables(encoder, random_tensors(encoder))
  image = jax.random.uniform(key, (3, 64, 64, 3))
  other = image.at[1:].set(1 - image[1:])
  pairs = zip(
    encode(encoder, variables, image),
    encode(encoder, variables, other),
    strict=True,
  )
  for a, b in pairs:
    np.testing.assert_array_equal(a[0], b[0])
    assert not np.allclose(a[1], b[1], rtol=1e-3)


@pytest.mark.parametrize('encoder', EVERY)
def test_bfloat16_is_close(encoder, key):
  image = jax.random.uniform(key, (2, 64, 64, 3))
  variables = importer.encoder_variables(encoder, random_tensors(encoder))
  exact = encode(encoder, variables, image)
  rough = encode(encoder.clone(dtype='bfloat16'), variables, image)
  for a, b in zip(rough, exact, strict=True):
    assert a.dtype == jnp.bfloat16
    scale = np.abs(b).max()
    np.testing.assert_allclose(
      a.astype(jnp.float32), b, rtol=0, atol=0.04 * scale
    )
  for leaf in jax.tree.leaves(abstract(encoder.clone(dtype='bfloat16'))):
    assert leaf.dtype == jnp.float32


@pytest.mark.parametrize('encoder', EVERY)
def test_remat_changes_no_name(encoder):
  again = encoder.clone(remat=True)
  assert abstract(encoder) == abstract(again)

  def checkpoints(encoder):
    apply = functools.partial(encoder.apply, train=False)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    jaxpr = jax.make_jaxpr(apply)(abstract(encoder), image)
    # jax has called this primitive by either name.
    names = [equation.primitive.name for equation in jaxpr.eqns]
    return sum(name in ('checkpoint', 'remat2') for name in names)

  assert (checkpoints(encoder), checkpoints(again)) == (0, 4)


@pytest.mark.parametrize(
  'encoder, word',
  [
    (convnext.ConvNeXt(size='huge'), "size='huge'.*'tiny'"),
    (convnext.ConvNeXt(depths=(1, 1, 1)), r'depths=\(1, 1, 1\)'),
    (vit.ViT(size='tiny'), "size='tiny'.*'small'"),
    (vit.ViT(depth=2), 'depth=2'),
    (vit.ViT(width=16, heads=3), 'heads=3'),
    (resnet.Backbone(output_stride=4), 'output_stride=4'),
  ],
)
def test_unknown_networks_are_refused(encoder, word):
  with pytest.raises(UserError, match=word):
    abstract(encoder)


@pytest.mark.parametrize('size', [6, 12])
def test_a_dilated_convolution_is_torchs(size):
  torch = pytest.importorskip('torch')
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, size, size, 4)).astype(np.float32)
  kernel = rng.standard_normal((3, 3, 4, 5)).astype(np.float32)
  expected = torch.nn.functional.conv2d(
    torch.from_numpy(x.transpose(0, 3, 1, 2).copy()),
    torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()),
    padding=2,
    dilation=2,
  )
  for rewrite in (False, True):
    actual = cpu_forms.convolve(
      jnp.asarray(x),
      jnp.asarray(kernel),
      padding=2,
      dilation=2,
      rewrite=rewrite,
    )
    np.testing.assert_allclose(
      actual, expected.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-5
    )
