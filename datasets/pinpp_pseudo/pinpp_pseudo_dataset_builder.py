"""Pseudo part labels for `tfds.load('pinpp_pseudo')`.

A network makes them: `python -m pinpp_jax.main --config=configs/label.py`.
What they look like on disk is said in `pinpp_jax.data.read.pseudo`.
"""

from pinpp_jax.data.read import pseudo


class Builder(pseudo.Pseudo):
  """DatasetBuilder for pinpp_pseudo; the catalogue text is README.md."""
