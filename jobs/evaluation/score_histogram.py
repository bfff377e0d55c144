"""How scores of positive and negative pixels lie to each other, counted chunk by chunk in fixed memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.evaluation.areas import precision_area, roc_area
from jobs.evaluation.score_counts import ScoreCounts

_KEPT_BITS: Final = 20  # of a float32: sign, 8 bits of exponent, 11 of mantissa
_N_BINS: Final = 1 << _KEPT_BITS

Counts = npt.NDArray[np.int64]


def _no_counts() -> Counts:
    return np.zeros((2, _N_BINS), np.int64)


@dataclass(frozen=True)
class ScoreHistogram:
    """Counts of pixels by score and truth; 16 MB, however many pixels there are, and no range to know beforehand.

    A bin holds the scores whose float32 have the upper 20 bits in common: scores of one sign that differ by less than
    1/2048 of themselves. Those of a float16 raster are all apart, so that its areas are exact. For others,
    :attr:`resolution` says by how much at the most the area differs from that of the scores themselves.

    Attributes
    ----------
    counts
        int64 (truth, bin), scores rising.
    unscored
        int64 (truth,), pixels without a score.
    """

    counts: Counts = field(default_factory=_no_counts)
    unscored: Counts = field(default_factory=lambda: np.zeros(2, np.int64))

    def add(self, score: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]) -> None:
        """Count pixels.

        Parameters
        ----------
        score, truth
            float and bool, of one shape; what isn't finite is no score.
        """
        known = np.isfinite(score)
        self.unscored[:] += np.bincount(truth[~known], minlength=2)
        bits = (score[known].astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
        # rises with the number: floats are ordered by their bits, negative ones the other way round
        rank = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)) >> (32 - _KEPT_BITS)
        both = rank.astype(np.int64) + truth[known] * _N_BINS
        self.counts[:] += np.bincount(both, minlength=2 * _N_BINS).reshape(2, _N_BINS)

    def add_counts(self, other: ScoreHistogram) -> None:
        """Add those of other pixels."""
        self.counts[:] += other.counts
        self.unscored[:] += other.unscored

    @property
    def n_positive(self) -> int:
        """Positive pixels with a score."""
        return int(self.counts[1].sum())

    @property
    def n_negative(self) -> int:
        """Negative pixels with a score."""
        return int(self.counts[0].sum())

    @property
    def roc_auc(self) -> float | None:
        """Area under the ROC curve of the pixels with a score, bins taken as ties; None where one kind is missing."""
        return roc_area(self.counts)

    @property
    def resolution(self) -> float:
        """How far :attr:`roc_auc` is at the most from that of the scores themselves: half of the pairs within a bin."""
        negative, positive = self.counts.astype(np.float64)
        pairs = float(self.n_positive) * self.n_negative
        return float(negative @ positive) / (2 * pairs) if pairs else 0.0

    @property
    def roc_auc_with_background(self) -> float | None:
        """Area with the pixels without a score as the lowest of all: the glass around tissue makes it look better."""
        return roc_area(np.column_stack([self.unscored, self.counts]))

    @property
    def average_precision(self) -> float | None:
        """Area under the precision-recall curve of the pixels with a score, bins taken as ties."""
        return precision_area(self.counts)

    def occupied(self) -> ScoreCounts:
        """Return the bins that hold anything, which are few of all."""
        bins = np.flatnonzero(self.counts.any(axis=0))
        return ScoreCounts(bins, self.counts[:, bins])
