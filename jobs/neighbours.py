"""The tiles that are most alike to one of them, in feature space."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Neighbours(NamedTuple):
    """Tiles in falling order of likeness.

    Attributes
    ----------
    tiles
        intp (k,), positions.
    cosine
        float32 (k,), cosine of the features with those of the query, -1 to 1.
    """

    tiles: npt.NDArray[np.intp]
    cosine: npt.NDArray[np.float32]


def nearest_tiles(
    features: npt.NDArray[np.float16] | npt.NDArray[np.float32], query: int, k: int
) -> Neighbours:
    """Find the nearest neighbours of a tile by the cosine of features.

    Parameters
    ----------
    features
        (tile, feature).
    query
        Position of the tile; it is not among its neighbours.
    k
        How many; fewer when there are fewer tiles.
    """
    vectors = features.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1)
    lengths[lengths == 0] = 1.0  # a vector of zeros is like nothing
    cosine = (vectors @ vectors[query]) / (lengths * lengths[query])
    order = np.argsort(-cosine, kind="stable")
    nearest = order[order != query][:k]
    return Neighbours(nearest, cosine[nearest])
