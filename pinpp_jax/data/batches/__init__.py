"""From a source to batches of numpy arrays, made ahead of time with Grain."""
