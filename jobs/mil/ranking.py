"""From scores of tiles to the best of them. Pure numpy; the same scores always give the same tiles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from store_schema.errors import InputError

Scores = npt.NDArray[np.float32]


def feature_norms(features: npt.NDArray[Any]) -> Scores:
    """Return float32 (tile,), the L2 norms of float features (tile, feature)."""
    values = features.astype(np.float32, copy=False)
    norms: Scores = np.sqrt(np.einsum("tf,tf->t", values, values))
    return norms


def attention_score(attention: npt.NDArray[np.floating]) -> Scores:
    """Bring attention (tile,) or (tile, class) to one number a tile, float32 (tile,).

    Of attention by class the greatest counts: a tile that any class looks at is worth keeping, and the choice does
    not depend on a prediction that may be wrong.
    """
    values: Scores = attention.astype(np.float32, copy=False)
    if values.ndim > 1:
        values = values.max(axis=1, initial=-np.inf)
    return values


def unit_range(scores: Scores) -> Scores:
    """Bring a slide's scores to 0 to 1 by their least and greatest; all 0 where they are equal."""
    if not scores.size:
        return scores
    low, high = scores.min(), scores.max()
    if not high > low:
        return np.zeros_like(scores)
    # in double precision: attention over many tiles differs in its last digits only
    scaled: Scores = ((scores.astype(np.float64) - low) / (float(high) - float(low))).astype(
        np.float32
    )
    return scaled


def weighted(attention: Scores, norms: Scores, alpha: float) -> Scores:
    """Return ``alpha`` of the attention and ``1 - alpha`` of the norms, each brought to 0 to 1 on this slide."""
    return np.float32(alpha) * unit_range(attention) + np.float32(1 - alpha) * unit_range(norms)


def how_many(n_tiles: int, k: int | None, fraction: float | None) -> int:
    """Return how many of a slide's tiles to take: ``k``, or a fraction rounded up; never more than there are.

    Raises
    ------
    InputError
        Unless exactly one is given, and makes sense.
    """
    if (k is None) == (fraction is None):
        raise InputError("give either --k or --fraction")
    if k is not None:
        if k < 1:
            raise InputError(f"--k {k} takes no tiles: give at least 1")
        return min(k, n_tiles)
    assert fraction is not None
    if not 0 < fraction <= 1:
        raise InputError(
            f"--fraction {fraction:g} is not a part of the tiles: give more than 0, up to 1"
        )
    # 0.07 * 100 is a little more than 7
    return min(n_tiles, max(1, math.ceil(round(fraction * n_tiles, 6))))


def top_k(scores: Scores, k: int) -> npt.NDArray[np.int32]:
    """Return int32 (k,), positions of the k greatest scores, best first; of equal ones the earlier tile."""
    return np.argsort(-scores, kind="stable")[:k].astype(np.int32)
