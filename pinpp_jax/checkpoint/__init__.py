"""Saving and restoring a run's state, and checking its files.

Only this package knows Orbax.
"""

from pinpp_jax.checkpoint.saved import Best, Checkpoints, load_best

__all__ = ['Best', 'Checkpoints', 'load_best']
