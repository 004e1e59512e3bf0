"""Reports as self-contained HTML pages: of a run, a check, statistics."""
