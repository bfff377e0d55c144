"""Scores of several slides, counted so that any draw of the slides is judged without looking at them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jobs.evaluation.areas import precision_area, roc_area

MOST_BINS: Final = 2048
"""Of more, neighbours are merged: a drawn area is then off by about 1/1000 at the most."""


@dataclass(frozen=True)
class ScoreCounts:
    """A slide's tiles or pixels, by score and truth.

    Attributes
    ----------
    levels
        (level,), rising; scores, or the bins that they fall into.
    counts
        int64 (truth, level).
    """

    levels: npt.NDArray[Any]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, score: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]) -> ScoreCounts:
        """Count single scores, (n,); what isn't finite is none."""
        known = np.isfinite(score)
        levels, which = np.unique(score[known], return_inverse=True)
        both = np.bincount(which + truth[known] * len(levels), minlength=2 * len(levels))
        return cls(levels, both.reshape(2, len(levels)).astype(np.int64))


@dataclass(frozen=True)
class SlideCounts:
    """Scores of slides by bin.

    Attributes
    ----------
    counts
        float32 (slide, truth, bin), scores rising. A draw is a product with them, and takes as long as reading them.
    """

    counts: npt.NDArray[np.float32]

    @classmethod
    def of(cls, slides: Sequence[ScoreCounts], most_bins: int = MOST_BINS) -> SlideCounts:
        """Bring slides to common bins, of which areas are exact or, where there are too many, nearly so."""
        levels = np.unique(np.concatenate([slide.levels for slide in slides]))
        places = [np.searchsorted(levels, slide.levels) for slide in slides]
        total = np.zeros((2, len(levels)))
        for slide, place in zip(slides, places, strict=True):
            total[:, place] += slide.counts
        bin_of_level = _bins(total, most_bins)
        n_bins = int(bin_of_level.max(initial=-1)) + 1
        counts = np.zeros((len(slides), 2, n_bins), np.float32)
        for of_slide, slide, place in zip(counts, slides, places, strict=True):
            bins = bin_of_level[place]
            of_slide[:] = [np.bincount(bins, each, n_bins) for each in slide.counts]
        return cls(counts)

    def areas(self, times: npt.NDArray[np.integer]) -> tuple[float | None, float | None]:
        """Return the areas under the ROC and the precision-recall curve of slides together.

        Parameters
        ----------
        times
            int (slide,), how often each was drawn.
        """
        n_slides, *shape = self.counts.shape
        drawn = times.astype(np.float32) @ self.counts.reshape(n_slides, -1)
        together = drawn.reshape(shape).astype(np.float64)
        return roc_area(together), precision_area(together)


def _bins(total: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.intp]:
    """Return the bin of each level, rising from 0, of counts (truth, level)."""
    # negative scores next to each other may be merged: neither curve has a step between them
    has_positive = total[1] > 0
    begins = has_positive | np.append(True, has_positive[:-1])[: len(has_positive)]
    bins: npt.NDArray[np.intp] = begins.cumsum() - 1
    if not bins.size or bins[-1] < most:
        return bins
    # half of the bins for each truth: rare positives are told apart as finely as what is common
    share = (total / np.maximum(total.sum(axis=1, keepdims=True), 1)).mean(axis=0)
    merged = ((share.cumsum() - share) * most).astype(np.intp)
    bins = np.unique(merged, return_inverse=True)[1]
    return bins
