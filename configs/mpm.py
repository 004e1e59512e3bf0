r"""MPM: joint supervision by classes and parts, adversarially trained (PGD-2).

  python -m pinpp_jax.main --config=configs/mpm.py
  python -m pinpp_jax.main --config=configs/mpm.py:mini
  python -m pinpp_jax.main --config=configs/mpm.py:smoke

The paper's main recipe, stage 3: starts from the run of configs/mpm_init.py and
trains on annotated masks and on the pseudo labels of configs/label.py. Options,
joined to the size by '-' (`mpm.py:level1-mini`): the ablations `human` (no
pseudo labels), `level1` (parts at 7x7 alone), `level2` (14x14 and 7x7),
`object` (object masks instead of parts), `two_stage` (the class is predicted
from the parts), and `reference` (the PyTorch reference's behaviour wherever
ours differs). The released ablations do not state their initial weights; ours
start like the main recipe, except `object` and `two_stage`, which take the
backbone alone.

Cost and accuracy of 80 epochs: not measured yet.
"""

from configs import base

OPTIONS = ('human', 'level1', 'level2', 'object', 'two_stage', 'reference')


def get_config(variant='full'):
  """Returns the recipe for `variant`, words joined by '-'."""
  size, options = base.words(variant, OPTIONS)
  config = base.recipe(size)
  base.with_parts(config, size, options)
  base.robust(config, size)
  if size == 'full':
    config.init.path = 'runs/mpm_init-full'

  if 'level1' in options:
    config.model.level = 1
  if 'level2' in options:
    config.model.level = 2
  if 'object' in options:
    config.objective.targets = 'objects'
    config.evals.parts.update(targets='objects', prior=False)
    config.init.part = 'backbone'
  if 'two_stage' in options:
    config.model.name = 'two_stage'
    del config.model.level, config.model.top_down
    config.init.part = 'backbone'
  if 'reference' in options:
    base.as_reference(config)
  return config
