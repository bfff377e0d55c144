"""Tiles along one axis: which of them cover a point, and where in the tile the point lies.

Along an axis the tiles of a lattice have few distinct corners. Every n-th of them, with n as small as no two of those
overlap, is a layer: in a layer a point is in one tile or in none, so whole pictures of layers can be had by indexing,
without a loop over tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dataflow.stitch_spec import GAUSSIAN_SIGMA


@dataclass(frozen=True)
class Cover:
    """What covers the points of an axis in one layer.

    Attributes
    ----------
    places
        int64 (place,), the tiles of the layer that are near, as positions in the span that was asked for; -1, which
        is last, stands for no tile.
    place
        int64 (point,), which of ``places`` a point is in.
    pixel
        int64 (point,), the pixel of the tile that it is in.
    weight
        float32 (point,), of a Gaussian around the tile's centre.
    """

    places: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    pixel: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float32]

    @cached_property
    def first_of_runs(self) -> npt.NDArray[np.int64]:
        """Where a run of points in one pixel begins: what follows is the same."""
        changes = (np.diff(self.place) != 0) | (np.diff(self.pixel) != 0)
        return np.concatenate(([0], np.flatnonzero(changes) + 1))

    @cached_property
    def run(self) -> npt.NDArray[np.int64]:
        """int64 (point,), which run a point is of."""
        lengths = np.diff(np.append(self.first_of_runs, len(self.place)))
        return np.repeat(np.arange(len(lengths)), lengths)


@dataclass(frozen=True)
class TileAxis:
    """The corners of tiles along one axis.

    Attributes
    ----------
    corners
        int64 (place,), ascending and distinct [px, level 0].
    side
        Of a tile [px, level 0].
    """

    corners: npt.NDArray[np.int64]
    side: int

    @cached_property
    def n_layers(self) -> int:
        """The least n for which no two of every n-th tiles overlap."""
        ends = np.searchsorted(self.corners, self.corners + self.side, side="left")
        return int((ends - np.arange(len(self.corners))).max(initial=1))

    def span(self, first: float, last: float) -> range:
        """Return the places of the tiles that cover any point from ``first`` to ``last`` [px, level 0]."""
        start = int(np.searchsorted(self.corners, first - self.side, side="right"))
        return range(start, int(np.searchsorted(self.corners, last, side="right")))

    def cover(self, points: npt.NDArray[np.float64], span: range, layer: int, n_px: int) -> Cover:
        """Find what covers points in one layer.

        Parameters
        ----------
        points
            float64 (point,), ascending [px, level 0].
        span
            As of :meth:`span`.
        layer
            0 to ``n_layers`` - 1. Layers are counted from the axis' beginning, so that a point meets its tiles in
            the same order whatever the span.
        n_px
            Pixels of a tile along the axis.
        """
        first = span.start + (layer - span.start) % self.n_layers
        chosen = np.arange(first, span.stop, self.n_layers)
        # one that no point is in, so that there always is one
        corners = np.append(self.corners[chosen], np.iinfo(np.int64).max // 2)
        place = np.searchsorted(corners, points, side="right") - 1
        corner = corners[place]
        inside = (place >= 0) & (points < corner + self.side)
        place[~inside] = len(chosen)
        return Cover(
            np.append(chosen - span.start, -1),
            place,
            np.where(inside, pixel_in_tile(points - corner, self.side, n_px), 0),
            gaussian(points - corner, self.side),
        )


def pixel_in_tile(offset: npt.NDArray[np.float64], side: int, n_px: int) -> npt.NDArray[np.int64]:
    """Return which pixel of a tile a point is in, int64, for points at an offset from its corner [px, level 0]."""
    pixel = np.floor(offset * n_px / side).astype(np.int64)
    return np.minimum(pixel, n_px - 1)


def gaussian(offset: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float32]:
    """Return the weights of points at an offset from a tile's corner [px, level 0], float32; 1 at its centre."""
    from_centre = (offset / side - 0.5) / GAUSSIAN_SIGMA
    return np.exp(-0.5 * from_centre**2).astype(np.float32)
