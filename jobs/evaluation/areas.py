"""Areas under the curves of scores that were counted by truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def roc_area(counts: npt.NDArray[Any]) -> float | None:
    """Return the share of pairs (negative, positive) in order, ties counted half; None where one kind is missing.

    Parameters
    ----------
    counts
        (truth, bin), scores rising.
    """
    negative, positive = counts.astype(np.float64)  # pairs of large slides don't fit int64
    pairs = negative.sum() * positive.sum()
    if not pairs:
        return None
    below = negative.cumsum() - negative
    return float(positive @ (below + negative / 2) / pairs)


def precision_area(counts: npt.NDArray[Any]) -> float | None:
    """Return Σ (R_k - R_{k-1}) P_k over the bins, from the highest; None where one kind is missing.

    Parameters
    ----------
    counts
        (truth, bin), scores rising.
    """
    negative, positive = counts[:, ::-1].cumsum(axis=1)
    if not counts.size or not negative[-1] or not positive[-1]:
        return None
    steps = np.diff(positive, prepend=0) > 0
    recall = positive[steps] / positive[-1]
    precision = positive[steps] / (positive + negative)[steps]
    return float(np.diff(recall, prepend=0.0) @ precision)
