"""Scoring some parts is scoring all and looking at some; sizes; mistakes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax.errors import UserError
from pinpp_jax.models import Segmenter, segmenter

PARTS = 40


def make(**fields):
  fields = dict(encoder='resnet10', width=4, channels=4) | fields
  return Segmenter(num_parts=PARTS, **fields)


def images(shape=(2, 64, 32, 3)):
  rng = np.random.default_rng(0)
  return rng.random(shape).astype(np.float32)


IDS = np.array([[0, 7, 8, 9], [0, 40, 0, 0]], np.int32)


@pytest.mark.parametrize('decoder', sorted(segmenter.DECODERS))
def test_known_and_open_scores_agree_on_the_same_parts(decoder, variables_of):
  model = make(decoder=decoder)
  variables = variables_of(model)
  apply = jax.jit(functools.partial(model.apply, train=False))
  (all_parts,) = apply(variables, images())['parts']
  (known,) = apply(variables, images(), candidates=IDS)['parts']
  assert all_parts.shape == (2, 16, 8, PARTS + 1)
  assert known.shape == (2, 16, 8, 4) and known.dtype == jnp.float32
  assert np.std(all_parts) > 0.01
  for row, ids in enumerate(IDS):
    np.testing.assert_allclose(
      known[row], all_parts[row][..., ids], rtol=1e-5, atol=1e-5
    )


def test_their_gradients_agree_too(variables_of):
  model = make()
  variables = variables_of(model)
  weights = np.random.default_rng(1).normal(size=(2, 16, 8, 4))

  def loss(params, known):
    output = model.apply(
      variables | {'params': params},
      images(),
      train=False,
      candidates=IDS if known else None,
    )['parts'][0]
    if not known:
      output = jax.vmap(lambda x, ids: x[..., ids])(output, IDS)
    return jnp.sum(output * weights.astype(np.float32))

  grads = [
    jax.jit(jax.grad(functools.partial(loss, known=known)))(variables['params'])
    for known in (True, False)
  ]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
    *grads,
  )


def shapes(jaxpr):
  """Yields the shape of every array that a program makes."""
  for equation in jaxpr.eqns:
    yield from (v.aval.shape for v in equation.outvars)
    for value in equation.params.values():
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from shapes(inner)


def test_nothing_per_pixel_grows_with_the_number_of_parts(variables_of):
  model = make()
  variables = variables_of(model)

  def loss(params, ids):
    parts = model.apply(
      variables | {'params': params}, images(), train=False, candidates=ids
    )['parts'][0]
    return jnp.sum(parts**2)

  found = {
    known: [
      shape
      for shape in shapes(
        jax.make_jaxpr(jax.grad(loss))(variables['params'], ids).jaxpr
      )
      if PARTS + 1 in shape and len(shape) > 2
    ]
    for known, ids in ((True, IDS), (False, None))
  }
  assert not found[True] and found[False]


@pytest.mark.parametrize(
  ('fields', 'size'),
  [
    (dict(output_stride=8), (64, 64)),
    (dict(encoder='convnext_tiny'), (64, 96)),
    (dict(encoder='vit_small', width=12), (56, 84)),
    (dict(encoder='vit_small', width=12), (64, 96)),
  ],
  ids=str,
)
def test_scores_lie_at_every_fourth_pixel(fields, size):
  model = make(**fields)
  image = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)

  def scores(key, image):
    return model.init_with_output(key, image, train=False)[0]['parts'][0]

  made = jax.eval_shape(scores, jax.random.key(0), image)
  assert made.shape == (2, size[0] // 4, size[1] // 4, PARTS + 1)


def test_parts_is_accepted_and_changes_nothing(variables_of):
  model = make()
  shape = jax.eval_shape(
    lambda v: model.apply(v, images(), train=False, parts=False),
    variables_of(model),
  )
  assert shape['parts'][0].shape[-1] == PARTS + 1


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (dict(encoder='vgg'), "encoder='vgg'.*resnet50"),
    (dict(decoder='fcn'), "decoder='fcn'.*upernet"),
    (dict(encoder='convnext_tiny', output_stride=8), 'output_stride=8'),
    (dict(output_stride=12), '12'),
  ],
)
def test_mistakes_are_named(fields, message):
  with pytest.raises(UserError, match=message):
    make(**fields).init(jax.random.key(0), images(), train=False)
