"""The drawn data set for `tfds build pinpp_mini`.

The work is done in `pinpp_jax.data.build.builder`, which also builds without
TensorFlow: `pinpp build pinpp_mini`.
"""

from pinpp_jax.data.build import builder


class Builder(builder.PinppMini):
  """DatasetBuilder for pinpp_mini; the catalogue text is README.md."""
