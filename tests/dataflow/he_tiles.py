"""Synthetic H&E: Beer-Lambert with two dyes, so that the truth is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)


def he_tiles(n: int, side_px: int = 96, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Nuclei on a pink ground, uint8 (n, side, side, 3); no two tiles are alike."""
    rng = np.random.default_rng(seed)
    tiles = []
    for _ in range(n):
        blobs = ndimage.gaussian_filter(rng.normal(size=(side_px, side_px)), 3)
        ground = ndimage.gaussian_filter(rng.normal(size=(side_px, side_px)), 8)
        haematoxylin = 0.1 + 1.4 * (blobs > 0.5 * blobs.std())
        eosin = 0.6 + 0.3 * ground / ground.std()
        od = np.stack([haematoxylin, eosin.clip(0.1)], axis=-1) @ STAINS
        noise = rng.normal(scale=2.0, size=od.shape)
        tiles.append((240.0 * np.exp(-od) - 1.0 + noise).clip(0, 255).astype(np.uint8))
    return np.stack(tiles)


def blank_tile(side_px: int = 96, seed: int = 1) -> npt.NDArray[np.uint8]:
    """Clear glass with a scanner's noise, uint8 (side, side, 3)."""
    rng = np.random.default_rng(seed)
    return rng.normal(241.0, 1.5, size=(side_px, side_px, 3)).clip(0, 255).astype(np.uint8)
