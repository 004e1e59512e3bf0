"""What a run needs of its machine: accelerators, processes, memory, speed.

Nothing here knows about models, data or a run's folder.
"""
