"""Measurements: run as ordinary tests, or by themselves with ``python -m benchmarks.NAME``."""
