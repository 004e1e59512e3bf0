"""PartImageNet++ in JAX: data set, part-supervised models, robustness."""
