"""Lesions found against false alarms a slide: the free-response ROC, as CAMELYON16 defines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.morphology import local_maxima

from jobs.evaluation.lesions import ISOLATED, Lesions
from store_schema.specs import TileTable

RATES: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False alarms a slide at which sensitivity is read; the score is its mean over them."""

_EIGHT: Final = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Detections:
    """Where a slide is said to have lesions, against those that it has.

    Attributes
    ----------
    score
        float64 (detection,).
    lesion
        int32 (detection,), number of the lesion that it lies in; 0 is a false alarm. Those in isolated tumour cells
        are left out.
    n_lesions, n_isolated
        Of the slide.
    """

    score: npt.NDArray[np.float64]
    lesion: npt.NDArray[np.int32]
    n_lesions: int
    n_isolated: int


@dataclass(frozen=True)
class Froc:
    """The curve, of slides together.

    Attributes
    ----------
    n_slides, n_lesions, n_isolated, n_detections
        What it is of; lesions without isolated tumour cells.
    false_alarms, sensitivity
        The curve: false alarms a slide (rising), and the share of lesions that are found.
    at_rates
        Sensitivity at each of :data:`RATES`, between points of the curve linearly, beyond its end that of the end.
    score
        Their mean.
    """

    n_slides: int
    n_lesions: int
    n_isolated: int
    n_detections: int
    false_alarms: tuple[float, ...]
    sensitivity: tuple[float, ...]
    at_rates: dict[str, float]
    score: float


def detect(
    score: npt.NDArray[np.floating],
    table: TileTable,
    tile_level0: int,
    lesions: Lesions,
    flagged: npt.NDArray[np.bool_] | None = None,
) -> Detections:
    """Return a slide's detections.

    Each is one tile, the point its centre, with that tile's score.

    Parameters
    ----------
    score
        float (tile,); a tile without a score (NaN) is no detection.
    table, tile_level0
        The tiles, and the side of the square that each covers [px, level 0].
    lesions
        What there is to be found.
    flagged
        bool (tile,). With it, there is one detection a component (8-connected on the lattice of tiles): its tile of
        the greatest score. Without, one a regional maximum of the score: those are the components of the tiles above
        a threshold as they appear when it is lowered.
    """
    shape = int(table.row.max(initial=-1)) + 1, int(table.col.max(initial=-1)) + 1
    lattice = np.full(shape, -np.inf)
    tile_at = np.full(shape, -1, np.intp)
    # the greatest score comes last where tiles share a place
    order = np.argsort(np.where(np.isfinite(score), score, -np.inf), kind="stable")
    order = order[np.isfinite(score[order])]
    lattice[table.row[order], table.col[order]] = score[order]
    tile_at[table.row[order], table.col[order]] = order
    if flagged is None:
        # a border of nothing, so that a flat slide is one maximum
        ringed = np.pad(lattice, 1, constant_values=-np.inf)
        peaks = local_maxima(ringed, connectivity=2)  # type: ignore[no-untyped-call]
        regions = peaks.astype(bool)[1:-1, 1:-1] & (tile_at >= 0)
    else:
        regions = np.zeros(shape, bool)
        regions[table.row[flagged], table.col[flagged]] = True
    labels, n = ndimage.label(regions, structure=_EIGHT)
    places = ndimage.maximum_position(lattice, labels, np.arange(1, n + 1))
    tiles = np.array([tile_at[place] for place in places], np.intp)
    tiles = tiles[tiles >= 0]  # a component of tiles without a score
    centre_x, centre_y = (corner[tiles] + tile_level0 / 2 for corner in (table.x, table.y))
    lesion = lesions.at(centre_x, centre_y)
    counts = lesion != ISOLATED
    return Detections(
        score[tiles][counts].astype(np.float64),
        lesion[counts],
        lesions.n_lesions,
        lesions.n_isolated,
    )


def froc(slides: Sequence[Detections]) -> Froc | None:
    """Return the curve of slides together, None where they have no lesion.

    Parameters
    ----------
    slides
        All that were judged, those without lesions too: their false alarms count.
    """
    n_lesions = sum(slide.n_lesions for slide in slides)
    if not n_lesions:
        return None
    alarms = np.concatenate([slide.score[slide.lesion == 0] for slide in slides])
    hits = np.concatenate([_best_of_lesions(slide) for slide in slides])
    thresholds = np.unique(np.concatenate([alarms, hits]))[::-1]
    per_slide = np.concatenate([[0.0], _at_least(alarms, thresholds) / len(slides)])
    sensitivity = np.concatenate([[0.0], _at_least(hits, thresholds) / n_lesions])
    # along the curve as it is drawn; where it is upright, its upper end
    read = np.interp(RATES, per_slide, sensitivity)
    return Froc(
        len(slides),
        n_lesions,
        sum(slide.n_isolated for slide in slides),
        sum(len(slide.score) for slide in slides),
        tuple(per_slide.tolist()),
        tuple(sensitivity.tolist()),
        {f"{rate:g}": float(value) for rate, value in zip(RATES, read, strict=True)},
        float(read.mean()),
    )


def _best_of_lesions(slide: Detections) -> npt.NDArray[np.float64]:
    """Return the greatest score in each lesion that was found, float64 (lesion,)."""
    found = slide.lesion > 0
    numbers, which = np.unique(slide.lesion[found], return_inverse=True)
    best = np.full(len(numbers), -np.inf)
    np.maximum.at(best, which, slide.score[found])
    return best


def _at_least(
    scores: npt.NDArray[np.float64], thresholds: npt.NDArray[np.float64]
) -> npt.NDArray[np.intp]:
    """Return how many scores reach each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")
