"""A page over images and their part masks: `pinpp view`.

A `Catalogue` (built data set, release folder, samples of a run) has `Rows`,
what is known of every image in a few bytes, and gives one image at a time with
its masks and outlines. `query` chooses among the rows, `content` turns both
into what the page asks for, and that either comes from `server`, bound to
loopback, or lies in a folder of its own (`publish`).
"""
