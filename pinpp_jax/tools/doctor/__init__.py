"""`pinpp doctor`: what is installed and found, what to type next."""

from pinpp_jax.tools.doctor.cli import main

__all__ = ['main']
