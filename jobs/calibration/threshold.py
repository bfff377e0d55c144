"""From which score on a tile is flagged: chosen by a metric on slides whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from models.overlap import Overlap, sweep

Metric: TypeAlias = Literal["iou", "f1", "youden"]

Z_THRESHOLDS: Final[npt.NDArray[np.float64]] = np.linspace(-3, 5, 100)
"""The z-scores that are tried."""


_LEAST_GAIN: Final = 0.1


@dataclass(frozen=True)
class Threshold:
    """A threshold and what it comes to where it was chosen.

    Attributes
    ----------
    value
        A tile is flagged if its score is greater.
    overlap
        Of the tiles that chose it.
    at_end
        Whether it is the lowest or the highest that was tried: a better one may lie beyond.
    """

    value: float
    overlap: Overlap
    at_end: bool


def above(score: npt.NDArray[np.floating], threshold: float) -> npt.NDArray[np.bool_]:
    """Return which tiles are flagged, bool (tile,); NaN never is.

    Compared in double precision, as when the threshold was chosen: a float32 score against a Python float would be
    compared in single.
    """
    flagged: npt.NDArray[np.bool_] = score.astype(np.float64) > threshold
    return flagged


def choose_threshold(
    score: npt.NDArray[np.floating],
    truth: npt.NDArray[np.bool_],
    metric: Metric,
    thresholds: npt.NDArray[np.float64] = Z_THRESHOLDS,
) -> Threshold:
    """Choose the threshold of the greatest metric; of equally good ones the highest, which flags least.

    Parameters
    ----------
    score
        float (tile,), of one slide or of several together; a tile without a score (NaN) is never flagged, and
        missed where it is positive.
    truth
        bool (tile,).
    metric
        Of :data:`models.overlap.METRICS`.
    thresholds
        float64, rising: those that are tried.
    """
    counts = sweep(score, truth, thresholds)
    best = counts.best(metric)
    return Threshold(float(thresholds[best]), counts[best], best in (0, len(thresholds) - 1))


def hardly_better_than_all(overlap: Overlap, metric: Metric) -> str | None:
    """Return a sentence where a threshold gains next to nothing over flagging every tile, None where it does gain.

    Parameters
    ----------
    overlap
        Of the tiles that chose the threshold.
    metric
        By which it was chosen; less than a tenth more than what flagging all gives counts as nothing, of
        Youden's index less than 0.1.
    """
    if metric == "youden":
        index = overlap.youden
        if index is None or index >= _LEAST_GAIN:
            return None
        return f"sensitivity + specificity - 1 is {index:.3f}, by chance 0: the score hardly tells these tiles apart"
    everything = Overlap(overlap.tp + overlap.fn, overlap.fp + overlap.tn, 0, 0)
    name, found, floor = (
        ("IoU", overlap.iou, everything.iou)
        if metric == "iou"
        else ("F1", overlap.dice, everything.dice)
    )
    if found is None or floor is None or found > floor * (1 + _LEAST_GAIN):
        return None
    return (
        f"its {name} is {found:.3f}, that of flagging every tile {floor:.3f}: the score hardly "
        "tells these tiles apart"
    )


def every_threshold(score: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return a threshold for each way in which scores can be cut in two, float64, rising.

    The first flags all tiles, the last none, the others lie midway between neighbouring scores.
    """
    levels = np.unique(score[np.isfinite(score)].astype(np.float64))
    if not levels.size:
        return np.zeros(1)
    between = levels[:-1] + np.diff(levels) / 2
    return np.concatenate([[np.nextafter(levels[0], -np.inf)], between, levels[-1:]])
