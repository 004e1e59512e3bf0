"""A small evaluation in a process of its own: FOLDER."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from pinpp_jax.evals.autoattack import autoattack

N, S, K = 120, 8, 10


def main(folder: str) -> None:
  jax.config.update('jax_platforms', 'cpu')
  rng = np.random.default_rng(0)
  weights = jnp.asarray(rng.normal(size=(S * S * 3, K)), jnp.float32)
  predict = lambda x: (x.reshape(len(x), -1) - 0.5) @ weights
  images = rng.random((N, S, S, 3)).astype(np.float32)
  labels = np.asarray(predict(images)).argmax(-1)
  pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  pathlib.Path(folder, 'ready').touch()
  autoattack(
    predict,
    images,
    labels,
    eps=0.01,
    version='custom',
    attacks={
      'apgd-ce': {'steps': 20},
      'apgd-t': {'steps': 20},
      'fab-t': {'steps': 20},
      'square': {'queries': 300, 'restarts': 3},
    },
    batch_size=2,
    save_adversarial=True,
    folder=folder,
  )


if __name__ == '__main__':
  main(sys.argv[1])
