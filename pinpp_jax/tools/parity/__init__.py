"""`pinpp parity`: a judge of numbers recorded from the PyTorch reference."""

from pinpp_jax.tools.parity.cli import main

__all__ = ['main']
