"""The features that a record of every data set here has, as TFDS names them."""

from typing import Any

import tensorflow_datasets as tfds


def of_record(label: tfds.features.ClassLabel) -> dict[str, Any]:
  """Returns name -> feature of an image with its part mask.

  Args:
    label: The classes; their names may follow later.
  """
  text, image = tfds.features.Text, tfds.features.Image
  return {
    'image': image(encoding_format='jpeg'),
    'part_mask': image(
      shape=(None, None, 1), encoding_format='png', use_colormap=True
    ),
    'label': label,
    'wnid': text(),
    'file_name': text(),
    'source': text(),
    'annotations': text(),
  }
