"""A run's folder on disk, and the faults that a run survives.

Identity, lock and log of the folder; signals; losses that are not finite. Its
checkpoints are read and written by `pinpp_jax.checkpoint`.
"""
