"""A run's report: one HTML page that needs nothing else."""

from pinpp_jax.report.page import write

__all__ = ['write']
