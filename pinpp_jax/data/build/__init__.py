"""From a release and an ImageNet copy to a TFDS data set, done once.

Checks every class, paints the part masks, splits the images and writes the
shards. The builders in `datasets/` and `pinpp build` are thin wrappers around
it. Reading a built set is in `read`.
"""
