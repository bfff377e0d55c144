"""One window of the stitched slide: from the tiles that touch it to its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dataflow.stitch_axis import Cover, gaussian, pixel_in_tile
from dataflow.stitch_combine import Ballot, Canvas, Floats, Greatest, Mean, labels_in
from dataflow.stitch_source import StitchTiles, TileLattice
from dataflow.stitch_spec import Mode
from store_schema.errors import InputError

Points = npt.NDArray[np.float64]
_EVERYWHERE: Final = (slice(None), slice(None))
_MOST_LABELS: Final = 64  # each has a count at every pixel


@dataclass(frozen=True)
class Painter:
    """Paints points of a slide with what its tiles say of them.

    Attributes
    ----------
    tiles
        Of the slide.
    mode, vote_from
        As of :class:`dataflow.stitch_spec.StitchSpec`.
    """

    tiles: StitchTiles
    mode: Mode
    vote_from: float

    def paint(self, y: Points, x: Points) -> Floats | None:
        """Paint the points of a window.

        Parameters
        ----------
        y, x
            float64, ascending [px, level 0]: the points are all pairs of them.

        Returns
        -------
        ndarray
            float (class, y, x), NaN where there is nothing; None where no tile is near.
        """
        lattice = self.tiles.lattice
        if lattice is None:
            return self._paint_each(y, x)
        return self._paint_layers(lattice, y, x)

    def _paint_layers(self, lattice: TileLattice, y: Points, x: Points) -> Floats | None:
        """Paint whole layers by indexing: no loop over tiles."""
        rows, columns = lattice.y.span(y[0], y[-1]), lattice.x.span(x[0], x[-1])
        near = lattice.tile_at[rows.start : rows.stop, columns.start : columns.stop]
        tiles = np.unique(near[near >= 0])
        if not tiles.size:
            return None
        values = self._said(self.tiles.values(tiles))
        # the last row and column are for points in no tile; the last of the values is all NaN
        place = np.full((near.shape[0] + 1, near.shape[1] + 1), len(tiles))
        place[:-1, :-1] = np.where(near >= 0, np.searchsorted(tiles, near), len(tiles))
        n_y, n_x = self.tiles.map_px
        covers_y = [lattice.y.cover(y, rows, i, n_y) for i in range(lattice.y.n_layers)]
        covers_x = [lattice.x.cover(x, columns, i, n_x) for i in range(lattice.x.n_layers)]
        if len(covers_y) == len(covers_x) == 1:  # nothing overlaps
            return np.stack([_layer(v, place, covers_y[0], covers_x[0]) for v in values])
        canvases = self._canvases(values, (len(y), len(x)))
        for down in covers_y:
            for across in covers_x:
                weights = self._weights(down.weight, across.weight)
                for canvas, of_class in zip(canvases, values, strict=True):
                    canvas.add(_EVERYWHERE, _layer(of_class, place, down, across), weights)
        return np.stack([canvas.result() for canvas in canvases])

    def _paint_each(self, y: Points, x: Points) -> Floats | None:
        """Paint tile by tile: for those that are no lattice."""
        side, table = self.tiles.tile_level0, self.tiles.table
        top, bottom = np.searchsorted(y, table.y), np.searchsorted(y, table.y + side)
        left, right = np.searchsorted(x, table.x), np.searchsorted(x, table.x + side)
        tiles = np.flatnonzero((top < bottom) & (left < right))
        if not tiles.size:
            return None
        values = self._said(self.tiles.values(tiles))
        canvases = self._canvases(values, (len(y), len(x)))
        n_y, n_x = self.tiles.map_px
        for number, tile in enumerate(tiles):
            box = slice(top[tile], bottom[tile]), slice(left[tile], right[tile])
            down, across = y[box[0]] - table.y[tile], x[box[1]] - table.x[tile]
            pixels = np.ix_(pixel_in_tile(down, side, n_y), pixel_in_tile(across, side, n_x))
            weights = self._weights(gaussian(down, side), gaussian(across, side))
            for canvas, of_class in zip(canvases, values, strict=True):
                canvas.add(box, of_class[number][pixels], weights)
        return np.stack([canvas.result() for canvas in canvases])

    def _said(self, values: Floats) -> Floats:
        """Return what tiles say, given their values: their votes, if it comes to that."""
        if self.mode != "vote" or self.tiles.has_labels:
            return values
        nothing = np.isnan(values)
        if self.tiles.by_class:
            lowest = np.where(nothing, -np.inf, values)
            votes = np.arange(len(values))[:, None, None, None] == np.argmax(lowest, axis=0)
            return np.where(nothing.all(axis=0), np.nan, votes).astype(values.dtype)
        return np.where(nothing, np.nan, values >= self.vote_from).astype(values.dtype)

    def _canvases(self, values: Floats, shape: tuple[int, int]) -> Sequence[Canvas]:
        if self.mode == "max":
            return [Greatest(shape, values.dtype) for _ in values]
        if self.mode == "vote" and self.tiles.has_labels:
            labels = labels_in(values)
            if len(labels) > _MOST_LABELS:
                raise InputError(
                    f"{self.tiles.group.path}/{self.tiles.array} has more than {_MOST_LABELS} labels in one place: "
                    "--mode vote is for classes, of other numbers take --mode max or mean"
                )
            return [Ballot(shape, values.dtype, labels) for _ in values]
        return [Mean(shape, values.dtype) for _ in values]

    def _weights(
        self, down: npt.NDArray[np.float32], across: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32] | None:
        return down[:, None] * across if self.mode == "gaussian" else None


def _layer(values: Floats, place: npt.NDArray[np.int64], down: Cover, across: Cover) -> Floats:
    """Return a layer's points (y, x), NaN where it has no tile; a new array.

    Parameters
    ----------
    values
        float (tile, y, x), the last all NaN.
    place
        int64 (y place, x place), which of the tiles is where.
    down, across
        Which places, and which pixels of the tiles, the points are in.
    """
    _, n_y, n_x = values.shape
    near = place[np.ix_(down.places, across.places)]
    first = down.first_of_runs  # rows of points in one row of pixels are the same
    row_of_tile = near[down.place[first]] * n_y + down.pixel[first][:, None]
    # take is several times as fast as indexing with arrays
    rows = values.reshape(-1, n_x).take(row_of_tile, axis=0).reshape(len(first), -1)
    painted: Floats = rows.take(across.place * n_x + across.pixel, axis=1)
    return painted if len(first) == len(down.place) else painted.take(down.run, axis=0)
