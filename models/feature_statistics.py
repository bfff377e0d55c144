"""Mean and spread of each feature over the tiles that a model is trained on."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from models.bag_source import BagSource
from models.prefetch import prefetched

_CHUNK_TILES: Final = 4096
# a feature that hardly varies in training (a ReLU that seldom opens) would be blown up elsewhere
_LEAST_SPREAD: Final = 0.1


class FeatureStatistics(NamedTuple):
    """How to standardize features: (x - mean) · scale; both float32 (d,)."""

    mean: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]


def feature_statistics(source: BagSource, *, l2_normalize: bool) -> FeatureStatistics:
    """Go once through all tiles of all bags, one bag in memory at a time.

    Parameters
    ----------
    source
        The training bags.
    l2_normalize
        Whether tiles are brought to length 1 before.

    Returns
    -------
    FeatureStatistics
        Over tiles, so that large bags count more; ``scale`` is 1 / standard deviation, or 1 over a
        tenth of the mean deviation of all features where that is larger.
    """
    n, total, squares = 0, np.zeros(source.n_features), np.zeros(source.n_features)
    for bag in prefetched(range(len(source.ids)), source.load):
        for start in range(0, len(bag), _CHUNK_TILES):
            tiles = bag[start : start + _CHUNK_TILES].astype(np.float64)
            if l2_normalize:
                tiles /= np.maximum(np.linalg.norm(tiles, axis=1, keepdims=True), 1e-12)
            n += len(tiles)
            total += tiles.sum(axis=0)
            squares += np.einsum("ij,ij->j", tiles, tiles)
    mean = total / n
    deviation = np.sqrt(np.maximum(squares / n - mean**2, 0))
    least = _LEAST_SPREAD * deviation.mean()
    scale = 1 / np.maximum(deviation, least if least > 0 else 1.0)
    return FeatureStatistics(mean.astype(np.float32), scale.astype(np.float32))
