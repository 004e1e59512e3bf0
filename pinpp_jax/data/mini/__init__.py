"""The embedded data set `pinpp_mini`: a release drawn by the program.

Its pictures, and its files in the layout of the real release; it is built like
any other.
"""

from pinpp_jax.data.mini.drawn_release import render

__all__ = ['render']
