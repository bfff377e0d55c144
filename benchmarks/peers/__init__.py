"""Other tools on the same slide, the same tiles and the same encoder: ``python -m benchmarks.peers``."""
