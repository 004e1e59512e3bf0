"""AutoAttack on a few images, as one of several processes: FOLDER."""

import pathlib
import sys

import jax
import numpy as np

from pinpp_jax.evals.autoattack import autoattack

N, S, K = 24, 8, 10


def attack(folder):
  rng = np.random.default_rng(0)
  weights = rng.normal(size=(S * S * 3, K)).astype(np.float32)
  predict = lambda x: (x.reshape(len(x), -1) - 0.5) @ weights
  images = rng.random((N, S, S, 3)).astype(np.float32)
  labels = predict(images).argmax(-1)
  labels[3] += 1
  return autoattack(
    predict,
    images,
    labels % K,
    eps=0.008,
    version='custom',
    attacks={
      'apgd-ce': {'steps': 5},
      'fab-t': {'steps': 3, 'target_classes': 2},
    },
    batch_size=8,
    save_adversarial=True,
    folder=folder,
  )


if __name__ == '__main__':
  jax.distributed.initialize()
  outcome = attack(sys.argv[1])
  # Every process has all verdicts.
  flags = ''.join('01'[int(right)] for right in outcome.robust)
  line = f'{flags} {outcome.adversarial is not None}'
  path = pathlib.Path(sys.argv[1], f'told{jax.process_index()}')
  path.write_text(line)
