"""From raw scores of tiles to a mask: per-slide z-scores, a threshold, morphology on the lattice of tiles."""
