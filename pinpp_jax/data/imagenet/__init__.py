"""The user's ImageNet copy: every layout that people have, and crops of it.

A new layout (a folder, an archive, a file of labels) goes here.
"""
