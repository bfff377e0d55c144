"""Tiles of a feature file that are those of a grid that the store has: its features go beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.h5_features import H5Features
from jobs.h5_grid import ImportedGrid
from store_schema import names
from store_schema.slide_view import SlideView

IMPORTED = "imported"  # a key of the provenance that grids of imports have


@dataclass(frozen=True)
class OwnGrid:
    """A grid of the store that a file's tiles are of.

    Attributes
    ----------
    name
        Of the grid.
    tile_px, mpp
        Of its tiles; mpp may not be known.
    order
        int64 (tile,), which row of the file each of its tiles is.
    """

    name: str
    tile_px: int
    mpp: float | None
    order: npt.NDArray[np.int64]


def own_grid(
    slide: SlideView, file: H5Features, laid: ImportedGrid, wanted: str | None
) -> OwnGrid | None:
    """Return the grid whose tiles have the corners and the size of the file's, None if there is none.

    Grids of imports are left to the import, which knows how to mend them, unless the file was exported from a store.

    Parameters
    ----------
    slide
        Where to look.
    file, laid
        The file, and its tiles.
    wanted
        Only a grid of this name; None looks at all, first at the one that the file names.

    Raises
    ------
    IncompleteError, DamagedBlockError
        A grid that may be it can't be read.
    """
    for name in _candidates(slide, file, wanted):
        attrs = slide.grid_attrs(name)
        spec, n_tiles = attrs[names.SPEC], int(attrs[names.N_TILES])
        alike = (
            n_tiles == len(laid.table)
            and int(attrs[names.GEOMETRY]["tile_level0"]) == laid.geometry.tile_level0
            and file.tile_px in (None, int(spec["tile_px"]))
        )
        if not alike:
            continue
        if IMPORTED in attrs[names.PROVENANCE] and not (file.grid and slide.grid_sound(name)):
            continue
        table = slide.tile_table(name)
        ours, theirs = np.lexsort((table.x, table.y)), np.lexsort(file.coords.T)
        corners = np.stack([table.x, table.y], axis=1)
        if np.array_equal(corners[ours], file.coords[theirs]):
            order = np.empty(n_tiles, np.int64)
            order[ours] = theirs
            return OwnGrid(name, int(spec["tile_px"]), spec["mpp"], order)
    return None


def _candidates(slide: SlideView, file: H5Features, wanted: str | None) -> Iterator[str]:
    grids = slide.grids
    if wanted is not None:
        yield from (name for name in grids if name == wanted)
        return
    yield from sorted(grids, key=lambda name: name != file.grid)
