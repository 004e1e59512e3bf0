"""Checks the builder as TFDS does it; needs TensorFlow."""

from pinpp_mini import pinpp_mini_dataset_builder
import tensorflow_datasets as tfds


class PinppMiniTest(tfds.testing.DatasetBuilderTestCase):
  """Draws and builds a few images."""

  DATASET_CLASS = pinpp_mini_dataset_builder.Builder
  SPLITS = {'train': 6, 'validation': 2, 'test': 2}

  def _make_builder(self, config=None):
    # The test reads through tf.data, which ArrayRecord does not offer.
    builder = self.dataset_class(data_dir=self.tmp_dir, file_format='tfrecord')
    builder.RENDER = {
      'annotated': 5,
      'unannotated': 1,
      'validation': 1,
      'classes': 2,
    }
    return builder


if __name__ == '__main__':
  tfds.testing.test_main()
