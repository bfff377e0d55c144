"""How a decision overlaps with the truth: counts, and the counts at every threshold of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Overlap:
    """Counts of tiles or pixels. What is not defined (nothing predicted, nothing true) is None.

    Attributes
    ----------
    tp, fp, fn, tn
        True and false positives, false and true negatives.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @classmethod
    def of(cls, predicted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> Overlap:
        """Count two bool arrays of one shape."""
        tp = int(np.count_nonzero(predicted & truth))
        n_predicted, n_true = int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))
        fp, fn = n_predicted - tp, n_true - tp
        return cls(tp, fp, fn, predicted.size - tp - fp - fn)

    @property
    def iou(self) -> float | None:
        """TP / (TP + FP + FN): Jaccard's index."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def dice(self) -> float | None:
        """2 TP / (2 TP + FP + FN): also the F1 score."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float | None:
        """TP / (TP + FP)."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """TP / (TP + FN): the sensitivity."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float | None:
        """TN / (TN + FP)."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def youden(self) -> float | None:
        """Sensitivity + specificity - 1 (Youden 1950): 0 by chance, 1 at best."""
        if self.recall is None or self.specificity is None:
            return None
        return self.recall + self.specificity - 1


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@dataclass(frozen=True)
class Sweep:
    """The counts of ``score > threshold`` at each of some thresholds.

    Attributes
    ----------
    thresholds
        float64 (threshold,), rising.
    tp, fp
        int64 (threshold,).
    n_positive, n_negative
        Of the truth.
    """

    thresholds: npt.NDArray[np.float64]
    tp: npt.NDArray[np.int64]
    fp: npt.NDArray[np.int64]
    n_positive: int
    n_negative: int

    def __getitem__(self, index: int) -> Overlap:
        tp, fp = int(self.tp[index]), int(self.fp[index])
        return Overlap(tp, fp, self.n_positive - tp, self.n_negative - fp)

    def best(self, metric: str) -> int:
        """Return where a metric of :data:`METRICS` is greatest; of equal ones the highest threshold.

        The highest, since it flags least.
        """
        values = METRICS[metric](self)
        return int(len(values) - 1 - np.argmax(values[::-1]))


def sweep(
    score: npt.NDArray[np.floating],
    truth: npt.NDArray[np.bool_],
    thresholds: npt.NDArray[np.floating],
) -> Sweep:
    """Count at every threshold, in one sort.

    Parameters
    ----------
    score
        float (n,); NaN is never above a threshold.
    truth
        bool (n,).
    thresholds
        float (threshold,), rising.
    """
    steps = np.asarray(thresholds, dtype=np.float64)

    def above(values: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
        known = np.sort(values[np.isfinite(values)].astype(np.float64))
        return (known.size - np.searchsorted(known, steps, side="right")).astype(np.int64)

    n_positive = int(np.count_nonzero(truth))
    return Sweep(
        steps, above(score[truth]), above(score[~truth]), n_positive, truth.size - n_positive
    )


def _iou(counts: Sweep) -> npt.NDArray[np.float64]:
    return counts.tp / np.maximum(counts.n_positive + counts.fp, 1)


def _f1(counts: Sweep) -> npt.NDArray[np.float64]:
    tp = counts.tp.astype(np.float64)
    return 2 * tp / np.maximum(tp + counts.fp + counts.n_positive, 1)


def _youden(counts: Sweep) -> npt.NDArray[np.float64]:
    # one division of whole numbers: as a difference of two ratios, equal ones would differ in their last bit
    positive, negative = max(counts.n_positive, 1), max(counts.n_negative, 1)
    return (counts.tp * negative - counts.fp * positive) / np.float64(positive * negative)


METRICS: Final[Mapping[str, Callable[[Sweep], npt.NDArray[np.float64]]]] = MappingProxyType(
    {"iou": _iou, "f1": _f1, "youden": _youden}
)
"""What a threshold may be chosen by; ``youden`` is sensitivity + specificity - 1 (Youden 1950)."""
