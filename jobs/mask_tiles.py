"""What a mask of the store says of the tiles of a grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jobs.raster_reader import BAND_PX, SlideRaster
from store_schema import names
from store_schema.specs import TileTable


def mask_of_tiles(
    mask: SlideRaster, grid: str, table: TileTable, tile_level0: int
) -> npt.NDArray[np.uint8]:
    """Return the value of a mask for each tile.

    Parameters
    ----------
    mask
        Integer (y, x), 0 is outside.
    grid, table, tile_level0
        The tiles, and the side of the square that each covers [px, level 0].

    Returns
    -------
    array
        uint8 (tile,). Of a mask on the tile lattice of this grid the value at a tile's place, of any other that
        of the pixel at a tile's centre; 0 beyond the mask.
    """
    columns, rows = (
        np.floor((at - origin) / mask.px_level0).astype(np.intp)
        for at, origin in zip(
            tile_points(mask, grid, table, tile_level0), mask.origin_level0, strict=True
        )
    )
    height, width = mask.values.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    found = np.zeros(len(table), np.uint8)
    for i, band in enumerate(mask.bands()):
        here = np.flatnonzero(inside & (rows // BAND_PX == i))
        found[here] = band[rows[here] - i * BAND_PX, columns[here]]
    return found


def tile_points(
    mask: SlideRaster, grid: str, table: TileTable, tile_level0: int
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Return the points (x, y) [px, level 0] where a mask speaks of the tiles; see :func:`mask_of_tiles`."""
    if on_lattice(mask, grid):
        return (table.col + 0.5) * mask.px_level0, (table.row + 0.5) * mask.px_level0
    return table.x + tile_level0 / 2, table.y + tile_level0 / 2


def on_lattice(mask: SlideRaster, grid: str) -> bool:
    """Tell whether a mask has one pixel for each place of a grid's tile lattice."""
    if mask.grid != grid or mask.origin_level0 != (0.0, 0.0):
        return False
    geometry = mask.slide.grid_attrs(grid)[names.GEOMETRY]
    lattice = int(geometry["n_rows"]), int(geometry["n_cols"])
    stride = float(geometry["stride_level0"])
    return mask.values.shape == lattice and abs(mask.px_level0 - stride) < 1e-9 * stride
