"""Intervals of the numbers of tiles and pixels, from what each slide was counted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from jobs.evaluation.bootstrap import (
    RATIOS,
    Bootstrap,
    Drawn,
    Intervals,
    Measure,
    means_of,
    overlap_measure,
)
from jobs.evaluation.pixel_level import PixelCounts
from jobs.evaluation.score_counts import ScoreCounts, SlideCounts
from jobs.evaluation.tile_level import SlideTiles, TileMetrics
from models.overlap import Overlap

_AREAS: Final = ("auc_roc", "auc_pr")

INTERVALS: Final = (
    *(f"mean_{name}" for name in (*_AREAS, *RATIOS)),
    *(f"pooled_{name}" for name in (*_AREAS, *RATIOS)),
    *(f"pooled_pixel_{name}" for name in (*_AREAS, *RATIOS)),
)
"""What there are intervals of, as the rows of a group spell it."""


@dataclass(frozen=True)
class CountedSlide:
    """What is kept of a slide to draw it.

    Attributes
    ----------
    slide_id
        The slide.
    metrics
        Of its tiles.
    tiles, pixels
        By score; pixels are None where they weren't judged.
    pixel_overlap
        Of its pixels; None where nothing was decided.
    """

    slide_id: str
    metrics: TileMetrics
    tiles: ScoreCounts
    pixels: ScoreCounts | None
    pixel_overlap: Overlap | None

    @classmethod
    def of(
        cls, tiles: SlideTiles, metrics: TileMetrics, pixels: PixelCounts | None
    ) -> CountedSlide:
        """Count what was judged."""
        return cls(
            tiles.slide_id,
            metrics,
            ScoreCounts.of(tiles.score, tiles.truth),
            None if pixels is None else pixels.histogram.occupied(),
            None if pixels is None else pixels.overlap,
        )


def group_intervals(slides: Sequence[CountedSlide], bootstrap: Bootstrap) -> Intervals:
    """Return the intervals of slides together; keys are of :data:`INTERVALS`, less what isn't defined."""
    if not any(slide.metrics.n_positive for slide in slides):
        return {}  # all that is defined is 0, however slides are drawn
    found = dict(bootstrap.intervals([slide.slide_id for slide in slides], tile_measure(slides)))
    with_pixels = [slide for slide in slides if slide.pixels is not None]
    if with_pixels:
        ids = [slide.slide_id for slide in with_pixels]
        found |= bootstrap.intervals(ids, pixel_measure(with_pixels))
    return {name: interval for name, interval in found.items() if interval.low is not None}


def tile_measure(slides: Sequence[CountedSlide]) -> Measure:
    """Return what judges the tiles of drawn slides, as :func:`jobs.evaluation.tile_level.group_metrics` does of all."""
    scores = SlideCounts.of([slide.tiles for slide in slides])
    each = [(slide.metrics.auc_roc, slide.metrics.auc_pr) for slide in slides]
    areas = np.array(each, np.float64)  # None becomes NaN
    overlaps = [slide.metrics.overlap for slide in slides]
    decided = [overlap for overlap in overlaps if overlap is not None]
    pooled = overlap_measure(decided) if len(decided) == len(slides) else None

    def measure(drawn: Drawn) -> Mapping[str, float | None]:
        roc, pr = scores.areas(np.bincount(drawn, minlength=len(slides)))
        found = {"pooled_auc_roc": roc, "pooled_auc_pr": pr}
        found |= means_of(areas[drawn], [f"mean_{name}" for name in _AREAS])
        return found if pooled is None else {**found, **pooled(drawn)}

    return measure


def pixel_measure(slides: Sequence[CountedSlide]) -> Measure:
    """Return what judges the pixels of drawn slides together; all of them have pixels."""
    scores = SlideCounts.of([slide.pixels for slide in slides if slide.pixels is not None])
    decided = [slide.pixel_overlap for slide in slides if slide.pixel_overlap is not None]
    pooled = overlap_measure(decided) if len(decided) == len(slides) else None

    def measure(drawn: Drawn) -> Mapping[str, float | None]:
        roc, pr = scores.areas(np.bincount(drawn, minlength=len(slides)))
        found: dict[str, float | None] = {"pooled_pixel_auc_roc": roc, "pooled_pixel_auc_pr": pr}
        if pooled is not None:
            counts = pooled(drawn)
            found |= {f"pooled_pixel_{name}": counts[f"pooled_{name}"] for name in RATIOS}
        return found

    return measure
