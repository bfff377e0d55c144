"""One script a peer, run by the peer's own Python; they import nothing of slidestream but ``benchmarks.networks``."""
