"""What is true of one slide's tiles, pixels and lesions, read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from jobs.evaluation.tile_truth import TruthMask
from jobs.evaluation.truth import Truth
from jobs.score_reader import SlideScore
from store_schema.specs import SlideRecord, TileTable

_COVERED: Final = 0.5
"""Share of the positive area that tiles should cover; overlapping ones count as often as they cover it."""

WithoutTruth: TypeAlias = Literal["skip", "negative"]
"""Of slides that nothing is known of: ``skip`` leaves them out of the metrics; ``negative`` takes all of them for
negative, which is right where truth was drawn for all slides that have anything to draw."""


@dataclass(frozen=True)
class SlideTruth:
    """A slide's truth.

    Attributes
    ----------
    tiles
        bool (tile,).
    mask
        Where the slide is positive; None where only its tiles are known.
    notes
        What should be known of it, in sentences.
    """

    tiles: npt.NDArray[np.bool_]
    mask: TruthMask | None
    notes: tuple[str, ...] = ()


def truth_of_slide(
    truth: Truth, score: SlideScore, positive_from: float, without_truth: WithoutTruth = "skip"
) -> SlideTruth | None:
    """Return what is true of a slide with scores; see :func:`truth_of_tiles`."""
    of_tiles = score.slide.record, score.table, score.tile_level0
    return truth_of_tiles(truth, *of_tiles, positive_from, without_truth)


def truth_of_tiles(
    truth: Truth,
    record: SlideRecord,
    table: TileTable,
    tile_level0: int,
    positive_from: float,
    without_truth: WithoutTruth = "skip",
) -> SlideTruth | None:
    """Return what is true of a slide, None where nothing is known.

    Parameters
    ----------
    truth
        What is known of all slides.
    record, table, tile_level0
        The slide, its tiles, and the side of the square that each covers [px, level 0].
    positive_from
        A tile is positive if more of its area than this is.
    without_truth
        What to do where nothing is known.

    Raises
    ------
    InputError
        The truth of this slide can't be read, or doesn't fit it.
    """
    mask = truth.mask(record)
    if mask is not None:  # read once, for tiles too
        fraction = mask.fraction(table.x, table.y, tile_level0)
        notes = (*mask.notes, *_off_tissue(mask, fraction, tile_level0))
        return SlideTruth(fraction > positive_from, mask, notes)
    of_tiles = truth.tiles(record, table, tile_level0, positive_from)
    if of_tiles is not None:
        return SlideTruth(of_tiles, None)
    if without_truth == "negative":
        return SlideTruth(np.zeros(len(table), dtype=bool), _nothing(record))
    return None


def _off_tissue(
    mask: TruthMask, fraction: npt.NDArray[np.float64], tile_level0: int
) -> tuple[str, ...]:
    """Tell of a truth that lies beside the tiles: no size gives a shifted mask away, but this does."""
    area = np.count_nonzero(mask.mask) * mask.px_level0[0] * mask.px_level0[1]
    if not area:
        return ()
    covered = min(1.0, float(fraction.sum()) * tile_level0**2 / area)
    if covered >= _COVERED:
        return ()
    return (
        f"only {covered:.0%} of what is positive lies under tiles: check that its truth is of this slide, and not "
        "shifted",
    )


def _nothing(record: SlideRecord) -> TruthMask:
    return TruthMask(np.zeros((1, 1), dtype=bool), (float(record.width), float(record.height)))
