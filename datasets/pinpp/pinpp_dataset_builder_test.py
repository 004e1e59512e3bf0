"""Checks the builder as TFDS does it; needs TensorFlow."""

from pinpp import pinpp_dataset_builder
import tensorflow_datasets as tfds


class PinppTest(tfds.testing.DatasetBuilderTestCase):
  """Builds the small release in dummy_data/."""

  DATASET_CLASS = pinpp_dataset_builder.Builder
  SPLITS = {'train': 6, 'validation': 2, 'test': 2}

  def _make_builder(self, config=None):
    # The test reads through tf.data, which ArrayRecord does not offer.
    return self.dataset_class(data_dir=self.tmp_dir, file_format='tfrecord')


if __name__ == '__main__':
  tfds.testing.test_main()
