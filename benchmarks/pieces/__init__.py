"""Benchmarks of single operations and functions against an alternative."""
