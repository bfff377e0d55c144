"""The lesions of a slide as CAMELYON16 counts them: regions of the truth, less those too small to be asked for.

Ehteshami Bejnordi et al. 2017, JAMA 318(22), and the challenge's evaluation: what lies less than 75 µm apart is one
lesion; isolated tumour cells, of which the greatest extent is less than 275 µm after that, are neither to be found nor
false alarms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from jobs.evaluation.tile_truth import TruthMask

MERGE_UM: Final = 75.0
ISOLATED_UM: Final = 275.0

NO_LESION: Final = 0
ISOLATED: Final = -1

_EIGHT: Final = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Lesions:
    """A slide's lesions.

    Attributes
    ----------
    labels
        int32 (y, x): 1, 2 … of lesions, :data:`ISOLATED`, :data:`NO_LESION`. Only the part that has any.
    origin_px
        (x, y) of its corner [px of the truth].
    px_level0
        Side of its pixels [px, level 0], as (x, y).
    n_lesions, n_isolated
        How many there are.
    """

    labels: npt.NDArray[np.int32]
    origin_px: tuple[int, int]
    px_level0: tuple[float, float]
    n_lesions: int
    n_isolated: int

    def at(self, x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> npt.NDArray[np.int32]:
        """Return the label at points, int32 (point,).

        Parameters
        ----------
        x, y
            float (point,), [px, level 0].
        """
        columns, rows = (
            np.floor(place / px).astype(np.intp) - first
            for place, px, first in zip((x, y), self.px_level0, self.origin_px, strict=True)
        )
        height, width = self.labels.shape
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        found = np.zeros(len(x), np.int32)
        found[inside] = self.labels[rows[inside], columns[inside]]
        return found


def find_lesions(truth: TruthMask, mpp: float | None) -> Lesions:
    """Find the lesions of a slide: 8-connected regions, grown by half of 75 µm and with their holes filled.

    Parameters
    ----------
    truth
        Where the slide is positive.
    mpp
        Size of a level-0 pixel [µm/px]; None neither joins regions nor leaves small ones out, since their size isn't
        known.
    """
    mask, px = truth.mask, truth.px_level0
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return Lesions(np.zeros((0, 0), np.int32), (0, 0), px, 0, 0)
    margin_x, margin_y = (1 if mpp is None else int(MERGE_UM / 2 / (side * mpp)) + 1 for side in px)
    top, left = max(rows[0] - margin_y, 0), max(columns[0] - margin_x, 0)
    part = mask[top : rows[-1] + 1 + margin_y, left : columns[-1] + 1 + margin_x]
    if mpp is not None:
        sampling = px[1] * mpp, px[0] * mpp
        part = ndimage.distance_transform_edt(~part, sampling=sampling) < MERGE_UM / 2
    labels, n = ndimage.label(ndimage.binary_fill_holes(part), structure=_EIGHT)
    number = np.zeros(n + 1, np.int32)
    n_lesions = 0
    for label, place in enumerate(ndimage.find_objects(labels), 1):
        if mpp is not None and _extent_um(labels[place] == label, px, mpp) < ISOLATED_UM:
            number[label] = ISOLATED
        else:
            n_lesions += 1
            number[label] = n_lesions
    return Lesions(number[labels], (int(left), int(top)), px, n_lesions, n - n_lesions)


def _extent_um(region: npt.NDArray[np.bool_], px: tuple[float, float], mpp: float) -> float:
    """Return the major axis of the ellipse that has the region's second moments, as of pixels that are squares."""
    y, x = np.nonzero(region)
    places = np.stack([x * px[0], y * px[1]]) * mpp
    spread = np.cov(places, bias=True) if x.size > 1 else np.zeros((2, 2))
    spread += np.diag([(side * mpp) ** 2 / 12 for side in px])
    return float(4 * np.sqrt(np.linalg.eigvalsh(spread)[-1]))
