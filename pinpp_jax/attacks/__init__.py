"""Attacks: (keys, predict, image, label) to an image in [0, 1].

`keys` holds one typed PRNG key per image, `predict` maps images
(B, H, W, C) in [0, 1] to logits (B, K), `label` is (B,) int or a distribution
(B, K). What an attack does to an image depends on that image, its label and
its key alone.
"""

from pinpp_jax.attacks import apgd, fab, pgd, square

ATTACKS = {
  'apgd': apgd.APGD,
  'fab': fab.FAB,
  'pgd': pgd.PGD,
  'square': square.Square,
}
