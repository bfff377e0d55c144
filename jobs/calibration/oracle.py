"""The best that any threshold could do on one slide: it looks at the slide's truth, so it is a bound and no method."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from jobs.calibration.threshold import Z_THRESHOLDS, Metric, Threshold, above
from models.overlap import Overlap, Sweep

Flags = npt.NDArray[np.bool_]


def best_threshold(
    z: npt.NDArray[np.floating],
    truth: Flags,
    metric: Metric,
    clean: Callable[[Flags], Flags],
    thresholds: npt.NDArray[np.float64] = Z_THRESHOLDS,
) -> Threshold:
    """Choose the threshold whose mask, after morphology, is best.

    After morphology, since the best before it may be worse than others after: only so no other of the thresholds
    gives a better mask.

    Parameters
    ----------
    z
        float (tile,), of one slide.
    truth
        bool (tile,).
    metric
        Of :data:`models.overlap.METRICS`; of equally good thresholds the highest is taken.
    clean
        Morphology: bool (tile,) flagged → bool (tile,) in the mask.
    thresholds
        float64, rising: those that are tried.
    """
    found: dict[
        int, Overlap
    ] = {}  # by the number of flagged tiles: these sets lie within each other
    counts = []
    for threshold in thresholds:
        flagged = above(z, threshold)
        n_flagged = int(np.count_nonzero(flagged))
        if n_flagged not in found:
            found[n_flagged] = Overlap.of(clean(flagged), truth)
        counts.append(found[n_flagged])
    n_positive = int(np.count_nonzero(truth))
    every = Sweep(
        thresholds,
        np.array([each.tp for each in counts], np.int64),
        np.array([each.fp for each in counts], np.int64),
        n_positive,
        truth.size - n_positive,
    )
    best = every.best(metric)
    return Threshold(float(thresholds[best]), every[best], best in (0, len(thresholds) - 1))
