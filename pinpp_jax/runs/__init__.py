"""A run's folder on disk, and the faults that a run survives.

Identity, lock and log of the folder, signals, numbers that are not finite. The
checkpoints in it are the subject of `pinpp_jax.checkpoint`.
"""
