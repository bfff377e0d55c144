"""What heatmaps draw: a number a tile, a number a pixel of a raster, and regions as outlines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from store_schema.specs import TileTable

Colour = tuple[int, int, int]
Floats = npt.NDArray[np.float64]


class HeatLayer(Protocol):
    """Numbers that lie somewhere on a slide."""

    @property
    def values(self) -> npt.NDArray[np.floating]:
        """Float, of any shape; NaN where there is none."""
        ...

    @property
    def label(self) -> str:
        """What the numbers are, with their unit; stands at the colour bar."""
        ...

    @property
    def valid(self) -> tuple[float | None, float | None]:
        """Ends of what they may range over, None where there is none."""
        ...

    def drawn(self, values: Floats, size: tuple[int, int], scale: float) -> Floats:
        """Return float64 (y, x), a number for each pixel of a picture, NaN where there is none.

        Parameters
        ----------
        values
            What to draw instead of :attr:`values`, of the same shape: e.g. their ranks.
        size
            (width, height) of the picture [px]; it begins at the slide's origin.
        scale
            Picture pixels per level-0 pixel.
        """
        ...


@dataclass(frozen=True)
class TileScores:
    """One number a tile; where tiles overlap, each point has the mean of the tiles that cover it.

    Attributes
    ----------
    table
        The tiles.
    tile_level0
        Side of the square that a tile covers [px, level 0].
    values
        float (tile,); NaN where there is none.
    label
        What the number is, with its unit; stands at the colour bar.
    valid_min, valid_max
        Ends of what it may range over, None where it has none.
    """

    table: TileTable
    tile_level0: int
    values: npt.NDArray[np.floating]
    label: str
    valid_min: float | None = None
    valid_max: float | None = None

    @property
    def valid(self) -> tuple[float | None, float | None]:
        """Ends of what the number may range over."""
        return self.valid_min, self.valid_max

    def drawn(self, values: Floats, size: tuple[int, int], scale: float) -> Floats:
        """Return the mean of the tiles at each picture pixel; see :class:`HeatLayer`."""
        width, height = size
        known = np.isfinite(values)
        left, top = self.table.x[known] * scale, self.table.y[known] * scale
        side = self.tile_level0 * scale
        x0, x1 = _pixels(left, left + side, width)
        y0, y1 = _pixels(top, top + side, height)
        sums, counts = (np.zeros((height + 1, width + 1)) for _ in range(2))
        # corners of boxes, summed twice: the cost doesn't grow with the tiles' size
        for rows, columns, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
            np.add.at(sums, (rows, columns), sign * values[known])
            np.add.at(counts, (rows, columns), sign)
        sums, counts = (
            layer.cumsum(axis=0).cumsum(axis=1)[:height, :width] for layer in (sums, counts)
        )
        return np.where(counts > 0.5, sums / np.maximum(counts, 1.0), np.nan)


def _pixels(
    low: npt.NDArray[np.floating], high: npt.NDArray[np.floating], size: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the pixel intervals of tiles, at least a pixel each, cut to the picture."""
    first = np.clip(np.rint(low).astype(np.intp), 0, size - 1)
    return first, np.clip(np.rint(high).astype(np.intp), first + 1, size)


@dataclass(frozen=True)
class RasterScores:
    """One number a pixel of a raster, e.g. of a stitched map; a picture pixel has that of the place of its centre.

    Attributes
    ----------
    values
        float (y, x); NaN where there is none. Should not be much finer than the picture.
    px_level0
        Side of its pixels [px, level 0].
    origin_level0
        (x, y) of its top-left corner [px, level 0].
    label, valid_min, valid_max
        As of :class:`TileScores`.
    """

    values: npt.NDArray[np.floating]
    px_level0: float
    origin_level0: tuple[float, float]
    label: str
    valid_min: float | None = None
    valid_max: float | None = None

    @property
    def valid(self) -> tuple[float | None, float | None]:
        """Ends of what the number may range over."""
        return self.valid_min, self.valid_max

    def drawn(self, values: Floats, size: tuple[int, int], scale: float) -> Floats:
        """Return the raster at the centres of the picture's pixels; see :class:`HeatLayer`."""
        px = self.px_level0, self.px_level0
        return sampled(values, np.nan, px, self.origin_level0, size, scale)


@dataclass(frozen=True)
class Outline:
    """A region drawn as a line.

    Attributes
    ----------
    mask
        uint8 (y, x), 0 is outside.
    px_level0
        Side of its pixels [px, level 0] as (x, y).
    colour, label
        As in the legend.
    origin_level0
        (x, y) of its top-left corner [px, level 0].
    beyond
        Draw the line just outside of the region instead of inside: two regions with one border stay two lines.
    cased
        Draw a white line beside it.
    """

    mask: npt.NDArray[np.uint8]
    px_level0: tuple[float, float]
    colour: Colour
    label: str
    origin_level0: tuple[float, float] = (0.0, 0.0)
    beyond: bool = False
    cased: bool = False


def sampled(
    values: npt.NDArray[Any],
    outside: float,
    px_level0: tuple[float, float],
    origin_level0: tuple[float, float],
    size: tuple[int, int],
    scale: float,
) -> npt.NDArray[Any]:
    """Return a raster at the centres of a picture's pixels.

    Parameters
    ----------
    values
        (y, x).
    outside
        What there is beyond the raster.
    px_level0
        Side of its pixels [px, level 0] as (x, y).
    origin_level0
        (x, y) of its top-left corner [px, level 0].
    size
        (width, height) of the picture [px]; it begins at the slide's origin.
    scale
        Picture pixels per level-0 pixel.

    Returns
    -------
    array
        (y, x) of the picture, in the raster's dtype.
    """
    columns, rows = (
        np.floor(((np.arange(n) + 0.5) / scale - origin) / px).astype(np.intp)
        for n, origin, px in zip(size, origin_level0, px_level0, strict=True)
    )
    y, x = ((rows >= 0) & (rows < values.shape[0])), ((columns >= 0) & (columns < values.shape[1]))
    picture = np.full(size[::-1], outside, values.dtype)
    picture[np.ix_(y, x)] = values[np.ix_(rows[y], columns[x])]
    return picture
