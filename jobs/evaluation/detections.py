"""Where a score says that lesions are, tile by tile or region by region, and where chance would say so."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.morphology import local_maxima

from jobs.evaluation.lesions import ISOLATED, Lesions
from store_schema.specs import TileTable

SHUFFLES: Final = 20
"""How often scores are shuffled to see what chance gives."""

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
    # a slide without tissue has no lattice, which scipy can't search
    places = ndimage.maximum_position(lattice, labels, np.arange(1, n + 1)) if n else []
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


@dataclass(frozen=True)
class SlideDetections:
    """A slide's detections, and those of its scores in places that say nothing.

    Attributes
    ----------
    slide_id
        The slide.
    found
        Of the scores as they are.
    shuffled
        Of the same scores, and flags with them, dealt out to its tiles at random, :data:`SHUFFLES` times.
    """

    slide_id: str
    found: Detections
    shuffled: tuple[Detections, ...]

    @classmethod
    def of(
        cls,
        slide_id: str,
        score: npt.NDArray[np.floating],
        table: TileTable,
        tile_level0: int,
        lesions: Lesions,
        flagged: npt.NDArray[np.bool_] | None,
        seed: int,
    ) -> SlideDetections:
        """Detect, see :func:`detect`; what is shuffled follows from seed and slide, whatever other slides there are."""

        def at(order: npt.NDArray[np.intp]) -> Detections:
            decided = None if flagged is None else flagged[order]
            return detect(score[order], table, tile_level0, lesions, decided)

        rng = np.random.default_rng((seed, zlib.crc32(slide_id.encode())))
        found = at(np.arange(len(score)))
        return cls(slide_id, found, tuple(at(rng.permutation(len(score))) for _ in range(SHUFFLES)))
