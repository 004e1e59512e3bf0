"""Pseudo labels: part masks that a segmenter draws on images of known class.

frames     what of an image the network sees, and how its answer comes back
predict    probabilities on this process's devices
decide     probabilities -> mask and confidence
labeller   a block of images -> labels
blocks     which images, in which shards; labels them all
quality    labels against the truth
page       report.html
"""
