"""Checks that TFDS knows the builder, reads with it, and cannot build."""

import pathlib
import tempfile
import unittest

import numpy as np
from pinpp_pseudo import pinpp_pseudo_dataset_builder  # noqa: F401  registers it
import tensorflow_datasets as tfds

from pinpp_jax.data import labels, masks
from pinpp_jax.data.read import pseudo
from pinpp_jax.errors import UserError


class PinppPseudoTest(unittest.TestCase):
  """Writes one record and reads it back."""

  def test_cannot_build(self):
    with tempfile.TemporaryDirectory() as folder:
      builder = tfds.builder('pinpp_pseudo', data_dir=folder)
      with self.assertRaisesRegex(UserError, 'configs/label.py'):
        builder.download_and_prepare()

  def test_reads(self):
    with tempfile.TemporaryDirectory() as folder:
      output = pathlib.Path(folder, 'pinpp_pseudo', '1.0.0')
      table = labels.class_only(['n00000001'])
      draft = pseudo.Draft(output=output, labels=table, shards=1)
      draft.begin({})
      record = {
        'image': b'not looked at',
        'part_mask': masks.encode(np.zeros((2, 3), np.uint8)),
        'label': 0,
        'wnid': 'n00000001',
        'file_name': 'n00000001/n00000001_1.JPEG',
        'source': 'pseudo',
        'annotations': '[]',
        'confidence': 0.5,
        'part_confidence': np.zeros(0, np.float32),
      }
      draft.write(0, [record])
      draft.publish()
      skip = {'image': tfds.decode.SkipDecoding()}
      (read,) = tfds.data_source(
        'pinpp_pseudo', split='train', data_dir=folder, decoders=skip
      )
      self.assertEqual(read['image'], record['image'])
      self.assertEqual(read['part_mask'].shape, (2, 3, 1))
      self.assertEqual(read['confidence'], 0.5)


if __name__ == '__main__':
  unittest.main()
