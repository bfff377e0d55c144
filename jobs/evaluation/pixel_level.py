"""How well a stitched map tells positive pixels from negative ones, read chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.calibration.threshold import above
from jobs.evaluation.score_histogram import ScoreHistogram
from jobs.evaluation.tile_truth import TruthMask
from jobs.raster_reader import SlideRaster
from models.overlap import Overlap


@dataclass(frozen=True)
class PixelMetrics:
    """How well pixels are told apart.

    Attributes
    ----------
    n_pixels, n_positive
        All there are of the raster, with a score or without.
    n_without_score
        Pixels without one: ground that no tile covers.
    auc_roc, auc_pr
        Areas under the ROC curve and (as average precision) under the precision-recall curve of pixels with a score,
        exact to the bin of :class:`ScoreHistogram`; None where all are of one kind.
    auc_resolution
        How far ``auc_roc`` is at the most from that of the scores themselves.
    auc_with_background
        Area with pixels without a score as the lowest of all.
    overlap
        Counts of all pixels, of which those without a score are not flagged; None without a threshold or mask.
    """

    n_pixels: int
    n_positive: int
    n_without_score: int
    auc_roc: float | None
    auc_pr: float | None
    auc_resolution: float
    auc_with_background: float | None
    overlap: Overlap | None


@dataclass
class PixelCounts:
    """Pixels by score and truth, of a slide or of several.

    Attributes
    ----------
    histogram
        By score.
    overlap
        By decision; None where nothing was decided.
    """

    histogram: ScoreHistogram
    overlap: Overlap | None

    @classmethod
    def none(cls) -> PixelCounts:
        """Begin with nothing."""
        return cls(ScoreHistogram(), Overlap(0, 0, 0, 0))

    def add(self, other: PixelCounts) -> None:
        """Add those of another slide."""
        self.histogram.add_counts(other.histogram)
        if self.overlap is not None:
            self.overlap = None if other.overlap is None else self.overlap + other.overlap


def count_pixels(
    raster: SlideRaster,
    truth: TruthMask,
    *,
    threshold: float | None = None,
    mask: SlideRaster | None = None,
) -> PixelCounts:
    """Count a slide's pixels; in memory is a chunk of the raster at a time.

    Parameters
    ----------
    raster
        Scores; what isn't finite is ground that no tile covers.
    truth
        Where the slide is positive: a pixel of the raster is if its centre is.
    threshold
        A pixel that scores more is flagged.
    mask
        Or: a pixel whose centre is in it is flagged. It is read whole.
    """
    histogram, overlap = ScoreHistogram(), Overlap(0, 0, 0, 0)
    left, top = (0.0, 0.0) if mask is None else mask.origin_level0
    region = None
    if mask is not None:
        region = TruthMask(mask.values.values > 0, (mask.px_level0, mask.px_level0))
    for x, y, score in _chunks(raster):
        positive = truth.at(x, y)
        histogram.add(score, positive)
        if region is not None:
            overlap += Overlap.of(region.at(x - left, y - top), positive)
        elif threshold is not None:
            overlap += Overlap.of(above(score, threshold), positive)
    decided = mask is not None or threshold is not None
    return PixelCounts(histogram, overlap if decided else None)


def pixel_metrics(counts: PixelCounts) -> PixelMetrics:
    """Judge what was counted."""
    histogram = counts.histogram
    n_without = int(histogram.unscored.sum())
    return PixelMetrics(
        histogram.n_positive + histogram.n_negative + n_without,
        histogram.n_positive + int(histogram.unscored[1]),
        n_without,
        histogram.roc_auc,
        histogram.average_precision,
        histogram.resolution,
        histogram.roc_auc_with_background,
        counts.overlap,
    )


def _chunks(
    raster: SlideRaster,
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.floating]]]:
    """Yield x (x,) and y (y,) of pixels' centres [px, level 0] and scores (y, x), a stored chunk at a time."""
    rows, columns = raster.values.chunksizes["y"], raster.values.chunksizes["x"]
    row_ends, column_ends = np.cumsum(rows), np.cumsum(columns)
    for bottom, height in zip(row_ends, rows, strict=True):
        for right, width in zip(column_ends, columns, strict=True):
            i, j = slice(bottom - height, bottom), slice(right - width, right)
            left, top = raster.origin_level0
            x = left + (np.arange(j.start, j.stop) + 0.5) * raster.px_level0
            y = top + (np.arange(i.start, i.stop) + 0.5) * raster.px_level0
            yield x, y, raster.values[i, j].values
