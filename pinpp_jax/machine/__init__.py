"""The machine that a run uses: accelerators, processes, memory, speed.

Nothing here knows about models, data or a run's folder.
"""
