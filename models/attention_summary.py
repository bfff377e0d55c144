"""Numbers that sum up attentions of many bags at once.

For attention a over N tiles:

    entropy                 -Σ a log a / log N        1: uniform, 0: on one tile
    effective instances     1 / Σ a²                  (Kish 1965)
    top-1, top-10 mass      the sum of the 1, 10 largest a
    critical tile           argmax a
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

_TOP: Final = 10


class AttentionSummary(NamedTuple):
    """The numbers of each bag, (bag,); see the module.

    Attributes
    ----------
    entropy, effective, top1, top10
        float64; the entropy of a bag of one tile is NaN.
    critical
        int64, the first of equally large ones.
    """

    entropy: npt.NDArray[np.float64]
    effective: npt.NDArray[np.float64]
    top1: npt.NDArray[np.float64]
    top10: npt.NDArray[np.float64]
    critical: npt.NDArray[np.int64]


def summarise_attention(
    attention: npt.NDArray[np.floating], lengths: npt.NDArray[np.int64]
) -> AttentionSummary:
    """Sum up the attentions of bags.

    Parameters
    ----------
    attention
        float (ΣN,), bag after bag; sums to 1 in each.
    lengths
        int64 (bag,), N ≥ 1 of each.
    """
    a = attention.astype(np.float64)
    starts = np.cumsum(lengths) - lengths
    logs = np.log(np.maximum(a, np.finfo(np.float64).tiny))  # 0 log 0 is 0
    largest = np.maximum.reduceat(a, starts)
    # not <, where == would find no tile in an attention of NaN
    candidates = np.flatnonzero(~(a < np.repeat(largest, lengths)))
    scale = np.where(lengths > 1, np.log(lengths), np.nan)
    return AttentionSummary(
        -np.add.reduceat(a * logs, starts) / scale,
        1 / np.add.reduceat(a * a, starts),
        largest,
        _top_mass(a, starts, lengths),
        candidates[np.searchsorted(candidates, starts)] - starts,
    )


def _top_mass(
    a: npt.NDArray[np.float64], starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    tops = []
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        bag = a[start : start + length]
        tops.append(bag if length <= _TOP else np.partition(bag, length - _TOP)[-_TOP:])
    sizes = np.minimum(lengths, _TOP)
    mass: npt.NDArray[np.float64] = np.add.reduceat(np.concatenate(tops), np.cumsum(sizes) - sizes)
    return mass
