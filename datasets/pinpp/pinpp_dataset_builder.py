"""PartImageNet++ for `tfds build pinpp`.

The work is done in `pinpp_jax.data.build.builder`, which also builds without
TensorFlow: `pinpp build pinpp`.
"""

from pinpp_jax.data.build import builder


class Builder(builder.Pinpp):
  """DatasetBuilder for PartImageNet++; the catalogue text is README.md."""
