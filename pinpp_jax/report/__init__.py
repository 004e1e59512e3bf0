"""Reports as self-contained HTML pages: of a run, a check, statistics."""

from pinpp_jax.report.page import write

__all__ = ['write']
