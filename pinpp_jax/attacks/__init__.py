"""Attacks: (keys, predict, image, label) to an image in [0, 1].

`keys` holds one typed PRNG key per image, `predict` maps images
(B, H, W, C) in [0, 1] to logits (B, K), `label` is (B,) int or a distribution
(B, K). What an attack does to an image depends on that image, its label and
its key alone.

An attack whose class sets `reads_parts = True` gets more: `predict` returns all
outputs of the network, {'logits', 'parts'}, and `label` is a dict of `LABELS`.
"""

from pinpp_jax.attacks import adaptive, apgd, fab, pgd, square

# Labels for an attack that reads parts: `label` (B,) int, `parts`
# (B, G, G) int part ids with 0 for background, and `class_parts` (K, m) int:
# for each class a 0, its part ids, and zeros that fill the row.
LABELS = ('label', 'parts', 'class_parts')

ATTACKS = {
  'apgd': apgd.APGD,
  'fab': fab.FAB,
  'joint_pgd': adaptive.JointPGD,
  'pgd': pgd.PGD,
  'square': square.Square,
}


def reads_parts(attack: object) -> bool:
  """Whether an attack is given the parts too; see the package's docstring."""
  return getattr(attack, 'reads_parts', False)
