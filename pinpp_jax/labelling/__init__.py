"""Pseudo labels: part masks that a segmenter predicts, given the class.

frames      resizing and padding of images, and resampling of predictions
predict     probabilities on this process's devices
confidence  probabilities -> mask and confidence
labeller    a block of images -> labels
blocks      which images, in which shards; labels them all
quality     labels against the truth
page        report.html
"""
