"""PGD that knows of the parts, on small functions and on small networks."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinpp_jax import models, objectives, step
from pinpp_jax.attacks import ATTACKS, losses
from pinpp_jax.attacks.adaptive import JointPGD
from pinpp_jax.attacks.pgd import PGD
from pinpp_jax.errors import UserError

B, S, K, P, G = 5, 8, 4, 6, 4
# The classes have parts 1-2, 3-5, none and 6.
CLASS_PARTS = np.array(
  [[0, 1, 2, 0], [0, 3, 4, 5], [0, 0, 0, 0], [0, 6, 0, 0]], np.int32
)
joint = functools.partial(JointPGD, eps=0.1, step_size=0.04, steps=4)


@pytest.fixture
def image():
  rng = np.random.default_rng(0)
  x = rng.random((B, S, S, 3)).astype(np.float32)
  x[0, :2] = 0  # the box binds
  x[1, :2] = 1
  return jnp.asarray(x)


@pytest.fixture
def label():
  return labels(B, G)


@pytest.fixture
def keys():
  return jax.random.split(jax.random.key(0), B)


@pytest.fixture
def predict():
  return functools.partial(network, *weights())


def labels(number, grid):
  rng = np.random.default_rng(5)
  own = np.arange(number) % K
  which = rng.integers(0, 4, (number, grid, grid))
  return {
    'label': jnp.asarray(own),
    'parts': jnp.asarray(CLASS_PARTS[own[:, None, None], which]),
    'class_parts': jnp.asarray(CLASS_PARTS),
  }


def weights(channels=P + 1):
  rng = np.random.default_rng(1)
  shapes = (3, 3, 3, 8), (8, K), (8, channels), (8, channels)
  return [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]


def network(kernel, classify, fine, coarse, x):
  """A bypass of two levels on the features that the class is read from."""
  x = jax.nn.gelu(
    jax.lax.conv_general_dilated(
      x, kernel, (2, 2), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
  )
  pooled = x.reshape(x.shape[0], G // 2, 2, G // 2, 2, 8).mean((2, 4))
  logits = jnp.mean(x, axis=(1, 2)) @ classify
  return {'logits': logits, 'parts': [x @ fine, pooled @ coarse]}


def part_losses(outputs, label, **fields):
  """The training's loss of each image alone."""
  objective = objectives.OBJECTIVES['parts'](ignore_blank=False, **fields)
  return np.array(
    [
      objective.part_loss(
        [z[i : i + 1] for z in outputs['parts']],
        {
          'parts': label['parts'][i : i + 1],
          'label': label['label'][i : i + 1],
          'source': jnp.ones(1, jnp.int32),
        },
      )[0]
      for i in range(len(label['label']))
    ]
  )


def class_losses(outputs, label):
  return losses.cross_entropy(outputs['logits'], label['label'])


@pytest.mark.parametrize('aim', ['away', 'other'])
@pytest.mark.parametrize(('norm', 'eps'), [('linf', 0.1), ('l2', 0.7)])
def test_stays_in_ball_and_box(norm, eps, aim, image, label, keys, predict):
  attack = joint(eps=eps, step_size=eps, steps=2, norm=norm, aim=aim)
  x = jax.jit(lambda *a: attack(keys, predict, *a))(image, label)
  assert x.shape == image.shape and x.dtype == image.dtype
  assert (x >= 0).all() and (x <= 1).all()
  delta = np.abs(np.asarray(x - image)).reshape(B, -1)
  far = delta.max(1) if norm == 'linf' else np.sqrt((delta**2).sum(1))
  assert (far <= eps * (1 + 1e-5)).all() and (far > eps / 4).all()


@pytest.mark.parametrize('best', ['last', 'example'])
@pytest.mark.parametrize('restarts', [1, 3])
def test_is_pgd_without_a_part_weight(
  restarts, best, image, label, keys, predict
):
  fields = dict(eps=0.1, step_size=0.04, steps=4, best=best, restarts=restarts)
  plain = PGD(**fields)(
    keys, lambda x: predict(x)['logits'], image, label['label']
  )
  for aim in ('away', 'other'):
    x = JointPGD(part_weight=0.0, aim=aim, **fields)(
      keys, predict, image, label
    )
    np.testing.assert_array_equal(x, plain)
  x = JointPGD(**fields)(keys, predict, image, label)
  assert (x != plain).any()


def test_the_objective_is_that_of_training(image, label, predict):
  outputs = predict(image)
  value = joint(class_weight=0.5, part_weight=3.0).objective(outputs, label)
  parts = part_losses(outputs, label)
  expected = 0.5 * class_losses(outputs, label) + 3 * parts
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  alone = joint(class_weight=0.0, smoothing=0.0, gamma=0.0)
  np.testing.assert_allclose(
    alone.objective(outputs, label),
    part_losses(outputs, label, smoothing=0.0, gamma=0.0),
    rtol=1e-5,
  )


def test_each_weight_raises_its_loss(image, label, keys, predict):
  """Parts alone raise the parts' loss most, the class alone the class's."""
  clean = predict(image)
  found = {
    name: predict(
      joint(class_weight=c, part_weight=p)(keys, predict, image, label)
    )
    for name, c, p in (('class', 1, 0), ('both', 1, 1), ('parts', 0, 1))
  }
  parts = {k: part_losses(v, label) for k, v in found.items()}
  assert (parts['parts'] > part_losses(clean, label)).all()
  assert parts['parts'].mean() > parts['class'].mean()
  classes = {k: class_losses(v, label) for k, v in found.items()}
  assert (classes['class'] > class_losses(clean, label)).all()
  assert classes['class'].mean() > classes['parts'].mean()
  total = {k: (parts[k] + classes[k]).mean() for k in found}
  assert total['both'] > total['class'] and total['both'] > total['parts']


def other_labels(predict, image, label):
  """The labels that the attack aims at, cell by cell in a loop."""
  outputs = jax.device_get(predict(image))
  logits = outputs['logits'].copy()
  logits[np.arange(B), label['label']] = -np.inf
  other, scores = logits.argmax(-1), outputs['parts'][0]
  parts = np.zeros_like(label['parts'])
  for i, row, column in np.argwhere(np.asarray(label['parts']) > 0):
    ids = [k for k in CLASS_PARTS[other[i]] if k > 0]
    if ids and scores.shape[-1] == P + 1:
      parts[i, row, column] = ids[np.argmax(scores[i, row, column, ids])]
  return label | {'parts': jnp.asarray(parts), 'label': jnp.asarray(other)}


def test_towards_the_parts_of_another_class(image, label, keys, predict):
  attack = joint(class_weight=0.0, aim='other')
  aimed = other_labels(predict, image, label)
  assert len(set(np.unique(aimed['label']))) > 1
  x = attack(keys, predict, image, label)
  moved = part_losses(predict(x), aimed)
  assert (moved < part_losses(predict(image), aimed)).all()


@pytest.mark.parametrize('aim', ['away', 'other'])
def test_object_masks(aim, image, label, keys):
  predict = functools.partial(network, *weights(channels=K + 1))
  attack = joint(class_weight=0.0, targets='objects', aim=aim)
  x = attack(keys, predict, image, label)
  aimed = label
  if aim == 'other':
    aimed = other_labels(predict, image, label) | {'parts': label['parts']}
  moved = part_losses(predict(x), aimed, targets='objects')
  clean = part_losses(predict(image), aimed, targets='objects')
  assert ((moved > clean) if aim == 'away' else (moved < clean)).all()


@pytest.mark.parametrize('aim', ['away', 'other'])
def test_neighbours_do_not_matter(aim, image, label, keys, predict):
  call = jax.jit(lambda keys, *a: joint(aim=aim, restarts=2)(keys, predict, *a))
  together = call(keys, image, label)
  for i in (0, 3):
    one = slice(i, i + 1)
    mine = {k: label[k][one] for k in ('label', 'parts')}
    alone = call(
      keys[one], image[one], mine | {'class_parts': label['class_parts']}
    )
    np.testing.assert_allclose(together[one], alone, atol=1e-6)


def count(jaxpr, name):
  total = 0
  for equation in jaxpr.eqns:
    total += equation.primitive.name == name
    for value in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda v: hasattr(v, 'jaxpr')
    ):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        total += count(inner, name)
  return total


@pytest.mark.parametrize(('aim', 'extra'), [('away', 0), ('other', 1)])
def test_no_gradient_for_the_weights(aim, extra, image, label, keys):
  """Each step costs a forward pass and the gradient of the image."""

  def attacked(weights, image):
    predict = functools.partial(network, *weights)
    return joint(steps=2, aim=aim)(keys, predict, image, label)

  jaxpr = jax.make_jaxpr(attacked)(weights(), image).jaxpr
  assert count(jaxpr, 'conv_general_dilated') == 2 * 2 + extra
  assert count(jaxpr, 'dot_general') == 3 * (2 * 2 + extra)


def test_what_is_missing_is_said(image, label, keys, predict):
  without = lambda x: {'logits': predict(x)['logits']}
  with pytest.raises(UserError, match='part outputs'):
    joint()(keys, without, image, label)
  with pytest.raises(UserError, match='part outputs'):
    joint(aim='other')(keys, without, image, label)
  with pytest.raises(UserError, match='not as config.attack'):
    joint()(keys, predict, image, label['label'])
  for wrong in (
    {'aim': 'near'},
    {'targets': 'things'},
    {'class_weight': 0.0, 'part_weight': 0.0},
    {'part_weight': -1.0},
    {'norm': 'l3'},
  ):
    with pytest.raises(UserError):
      ATTACKS['joint_pgd'](eps=0.1, step_size=0.1, steps=1, **wrong)


@functools.cache
def small(name):
  """A small random network, eight images and their classes as it sees them."""
  model = models.MODELS[name](num_classes=K, num_parts=P, depth=10, width=8)
  rng = np.random.default_rng(3)
  image = jnp.asarray(rng.random((8, 32, 32, 3)), jnp.float32)
  variables = jax.jit(functools.partial(model.init, train=False, parts=True))(
    jax.random.key(2), image
  )
  if name == 'two_stage':  # Else all parts are as likely, whatever the image.
    head = variables['params']['head']['pointwise']
    head['kernel'] = 30 * head['kernel']
  # Statistics of these images, so that no layer is far from what it expects.
  for _ in range(40):
    logits, new = train(model, variables, image)
    variables = variables | new
  if name == 'two_stage':  # Else one class wins everywhere.
    variables['params']['classifier']['bias'] -= logits.mean(0)
  predict = jax.jit(
    functools.partial(model.apply, variables, train=False, parts=True)
  )
  label = labels(8, 4)
  return predict, image, label | {'label': predict(image)['logits'].argmax(-1)}


@functools.partial(jax.jit, static_argnums=0)
def train(model, variables, image):
  outputs, new = model.apply(
    variables, image, train=True, parts=True, mutable=['batch_stats']
  )
  return outputs['logits'], new


def broken(predict, x, label):
  return int((predict(x)['logits'].argmax(-1) != label['label']).sum())


def stopped(predict, x):
  """TwoStage's outputs with no gradient through the predicted parts."""

  def stop(call, args, kwargs, context):
    if context.method_name == '_classify':
      args = jax.lax.stop_gradient(args[0]), *args[1:]
    return call(*args, **kwargs)

  with nn.intercept_methods(stop):
    return predict.__wrapped__(x)


def test_two_stage_is_attacked_through_its_parts():
  """All of the class's gradient comes through them, and it is the true one."""
  predict, image, label = small('two_stage')
  loss = lambda f: lambda x: jnp.sum(class_losses(f(x), label))
  end_to_end = jax.jit(jax.grad(loss(predict)))(image)
  blind = functools.partial(stopped, predict)
  assert (jnp.abs(end_to_end).sum((1, 2, 3)) > 0).all()
  assert not jax.jit(jax.grad(loss(blind)))(image).any()
  along = end_to_end / jnp.linalg.norm(end_to_end)
  step = 0.05
  rise = loss(predict)(image + step * along) - loss(predict)(
    image - step * along
  )
  np.testing.assert_allclose(
    rise / (2 * step), jnp.linalg.norm(end_to_end), rtol=0.05
  )


def test_two_stage_breaks_through_its_parts():
  predict, image, label = small('two_stage')
  keys = jax.random.split(jax.random.key(0), len(image))
  attack = PGD(eps=0.1, step_size=0.05, steps=3)
  through, around = (
    jax.jit(lambda *a, f=f: attack(keys, lambda x: f(x)['logits'], *a))(
      image, label['label']
    )
    for f in (predict, functools.partial(stopped, predict))
  )
  assert broken(predict, through, label) > broken(predict, around, label)


def test_mpm_is_attacked_through_its_bypass():
  predict, image, label = small('mpm')
  keys = jax.random.split(jax.random.key(0), len(image))
  attack = joint(eps=0.03, step_size=0.02, steps=2, class_weight=0.0)
  x = jax.jit(lambda *a: attack(keys, predict, *a))(image, label)
  clean, moved = (attack.objective(predict(y), label) for y in (image, x))
  assert (moved > clean).all()


def test_training_refuses_it():
  """The step has no part outputs to give."""

  class Recipe:
    attack = joint()
    attack_ramp = staticmethod(lambda step: 1.0)

    class model:
      apply = staticmethod(
        lambda variables, x, train: {'logits': x.sum((1, 2))}
      )

  class State:
    variables, step = {}, 0

  batch = {
    'image': jnp.zeros((2, 4, 4, 3)),
    'label': jnp.zeros(2, jnp.int32),
    'id': jnp.zeros(2, jnp.uint32),
  }
  with pytest.raises(UserError, match='not as config.attack'):
    step.perturb(State(), batch, jax.random.key(0), Recipe())
