"""Small pieces of a mask, found band by band: memory grows with the number of pieces, not with the slide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SmallPieces:
    """Which pieces of a mask are small.

    Attributes
    ----------
    background
        Value of the mask that makes no pieces, beside 0.
    small
        For each band, in order: bool (piece,), the first for what is no piece.
    """

    background: int
    small: tuple[npt.NDArray[np.bool_], ...]

    def of(self, number: int, band: Mask) -> npt.NDArray[np.bool_]:
        """Return the pixels of small pieces, bool (y, x), of a band and its number."""
        found: npt.NDArray[np.bool_] = self.small[number][_labels(band, self.background)]
        return found


def small_pieces(bands: Iterable[Mask], background: int, min_px: int) -> SmallPieces:
    """Find the pieces of fewer than ``min_px`` pixels.

    Pixels of one value are one piece if they touch, at an edge or a corner.

    Parameters
    ----------
    bands
        uint8 (y, x) of full width, from top to bottom.
    background
        Value that makes no pieces, beside 0.
    min_px
        Pixels of the smallest piece that isn't small.
    """
    sizes: list[npt.NDArray[np.int64]] = []
    joined: list[npt.NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    first = 0  # number, over all bands, of a band's first label
    above: tuple[Mask, npt.NDArray[np.int64]] | None = None
    for band in bands:
        labels = _labels(band, background)
        counts = np.bincount(labels.ravel()).astype(np.int64)
        counts[0] = 0
        if above is not None and len(band):
            joined.append(_joined(*above, band[0], labels[0] + first))
        if len(band):
            above = band[-1], labels[-1] + first
        sizes.append(counts)
        first += len(counts)
    edges = np.concatenate(joined)
    graph = sparse.coo_array((np.ones(len(edges), bool), edges.T), shape=(first, first))
    _, piece = connected_components(graph, directed=False)
    total = np.bincount(piece, np.concatenate([np.empty(0, np.int64), *sizes])).astype(np.int64)
    ends = np.cumsum([len(counts) for counts in sizes])[:-1]
    small = [of_band.copy() for of_band in np.split((total < min_px)[piece], ends)]
    for of_band in small:
        of_band[:1] = False  # no piece
    return SmallPieces(background, tuple(small))


def _labels(band: Mask, background: int) -> npt.NDArray[np.int64]:
    regions = np.where(band == background, 0, band)
    # untyped in skimage
    labels: npt.NDArray[np.int64] = label(regions, background=0, connectivity=2).astype(np.int64)  # type: ignore[no-untyped-call]
    return labels


def _joined(
    above: Mask,
    labels_above: npt.NDArray[np.int64],
    below: Mask,
    labels_below: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return pairs of labels, (pair, 2), that touch across the line between two bands."""
    width = len(above)
    pairs = []
    for shift in (-1, 0, 1):
        left, right = max(0, shift), width + min(0, shift)
        here = slice(left, right)
        there = slice(left - shift, right - shift)
        same = above[here] == below[there]
        pairs.append(np.stack([labels_above[here][same], labels_below[there][same]], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)
