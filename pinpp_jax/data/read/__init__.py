"""Built data sets, pseudo labels and image lists, as sources of examples.

A source is a sequence of encoded examples with random access. A new kind of
stored data set goes here; batches are made in `batches`.
"""
