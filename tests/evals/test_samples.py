import dataclasses

import jax
import numpy as np
import pytest

from pinpp_jax.evals import samples


@pytest.mark.parametrize(
  'has_parts, has_logits, cell',
  [(True, True, 8), (False, True, 8), (True, False, 1)],
)
def test_samples_are_the_first_examples(
  tiny, table, key, has_parts, has_logits, cell, tmp_path
):
  split = tiny.split(table, cell=cell)
  model, variables = tiny.make(has_parts=has_parts, has_logits=has_logits)
  found = samples.samples(
    variables,
    key,
    number=10,
    model=model,
    batches=lambda: tiny.batches_of(split, 8),
    put=tiny.put,
    labels=table,
  )
  assert len(found) == 10
  for i, sample in enumerate(found):
    np.testing.assert_array_equal(sample.image, split['image'][i])
    np.testing.assert_array_equal(sample.true, split['parts'][i])
    assert sample.label == split['label'][i]
    assert sample.masked == (i % 3 != 0)
    assert (sample.predicted is not None) == has_parts
    assert (sample.predicted_class is not None) == has_logits

  samples.save(tmp_path / 'samples.npz', found)
  again = samples.load(tmp_path / 'samples.npz')
  assert [p.name for p in tmp_path.iterdir()] == ['samples.npz']
  for one, other in zip(found, again, strict=True):
    jax.tree.map(
      np.testing.assert_array_equal,
      dataclasses.asdict(one),
      dataclasses.asdict(other),
    )


def test_no_file_or_no_sample_is_an_empty_list(tmp_path):
  assert samples.load(tmp_path / 'samples.npz') == []
  samples.save(tmp_path / 'samples.npz', [])
  assert samples.load(tmp_path / 'samples.npz') == []
