"""The grid that imported coordinates lie on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataflow.hilbert import hilbert_index
from dataflow.tiling import MAX_LATTICE_TILES
from jobs.h5_features import H5Features
from store_schema.errors import UnreadableSlideError
from store_schema.specs import GridGeometry, TileTable

_ROUNDING = 1  # [px]: corners of a fractional stride are rounded


@dataclass(frozen=True)
class ImportedGrid:
    """Tiles of a file in stored order.

    Attributes
    ----------
    tile_px
        Side of a tile, as it was encoded [px]; that of level 0 where the file doesn't say.
    geometry
        Of the lattice through the slide's corner.
    table
        The tiles in Hilbert order of their places; ``tissue`` is NaN, for it isn't known.
    order
        int64 (tile,), which row of the file each tile is.
    notes
        What was inferred, in sentences.
    """

    tile_px: int
    geometry: GridGeometry
    table: TileTable
    order: npt.NDArray[np.int64]
    notes: tuple[str, ...]


def lay_imported(file: H5Features, tile_level0: int | None = None) -> ImportedGrid:
    """Find the lattice of a file's tiles and put them into stored order.

    The corners stay as they are. Rows and columns are the nearest places of the lattice that goes through the
    slide's corner, since tools differ: TRIDENT has this very lattice, CLAM one for each piece of tissue, so that
    a few tiles may come to share a place.

    Parameters
    ----------
    file
        The file.
    tile_level0
        Side of a tile [px, level 0] where the file doesn't say; None takes it that tiles touch.

    Raises
    ------
    UnreadableSlideError
        If the coordinates lie on nothing like a lattice.
    """
    notes = []
    stride = _said_stride(file) or neighbour_distance(file.coords)
    side = file.tile_level0 or tile_level0
    if side is None:
        if stride is None:
            raise UnreadableSlideError(
                f"{file.path}: neither says how large its tiles are nor has neighbours that show it; "
                "give --tile-level0"
            )
        side = round(stride)
        notes.append(f"tiles are taken to touch: {side} px of level 0 a side")
    laid = lay_corners(file.path, file.coords, side, stride or float(side))
    notes += laid.notes
    return ImportedGrid(file.tile_px or side, laid.geometry, laid.table, laid.order, tuple(notes))


@dataclass(frozen=True, eq=False)
class LaidCorners:
    """Corners on a lattice, in stored order; as of :class:`ImportedGrid`."""

    geometry: GridGeometry
    table: TileTable
    order: npt.NDArray[np.int64]
    notes: tuple[str, ...]


def lay_corners(
    path: Path, coords: npt.NDArray[np.int64], tile_level0: int, stride_level0: float
) -> LaidCorners:
    """Lay corners on the lattice that goes through the slide's corner; they stay as they are.

    Parameters
    ----------
    path
        The file, for the sentence.
    coords
        int64 (tile, 2), x and y [px, level 0].
    tile_level0, stride_level0
        Side and distance of tiles [px, level 0].

    Raises
    ------
    UnreadableSlideError
        That makes more places than a slide has.
    """
    x, y = coords[:, 0], coords[:, 1]
    col, row = (np.floor(values / stride_level0 + 0.5).astype(np.int64) for values in (x, y))
    n_rows, n_cols = int(row.max()) + 1, int(col.max()) + 1
    if n_rows * n_cols > MAX_LATTICE_TILES:
        raise UnreadableSlideError(
            f"{path}: its tiles are {stride_level0:g} px apart, which makes {n_cols} x {n_rows} places: "
            "coords must be those of a lattice of tiles"
        )
    shared = len(x) - len(np.unique(row * n_cols + col))
    notes = (
        (f"{shared} tiles share a place of the lattice with another (corners are exact)",)
        if shared
        else ()
    )
    order = np.lexsort((x, y, hilbert_index(col, row)))
    table = TileTable(
        x=x[order].astype(np.int32),
        y=y[order].astype(np.int32),
        row=row[order].astype(np.int32),
        col=col[order].astype(np.int32),
        tissue=np.full(len(x), np.nan, np.float32),
    )
    geometry = GridGeometry(tile_level0, stride_level0, n_rows, n_cols)
    return LaidCorners(geometry, table, order.astype(np.int64), notes)


def neighbour_distance(coords: npt.NDArray[np.int64]) -> float | None:
    """Return the distance of neighbouring tiles [px, level 0], None where no tiles are neighbours.

    Parameters
    ----------
    coords
        int64 (tile, 2), x and y.

    Notes
    -----
    Only tiles of one row, or one column, are compared: lattices of several pieces of tissue are shifted against
    each other. The commonest distance is averaged with those near it, which gives fractional strides exactly
    enough where corners are rounded.
    """
    gaps = np.concatenate([_gaps(coords[:, 0], coords[:, 1]), _gaps(coords[:, 1], coords[:, 0])])
    if not gaps.size:
        return None
    (common, _), *_ = Counter(gaps.tolist()).most_common(1)
    return float(gaps[np.abs(gaps - common) <= _ROUNDING].mean())


def _gaps(along: npt.NDArray[np.int64], across: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    order = np.lexsort((along, across))
    gaps: npt.NDArray[np.int64] = np.diff(along[order])[np.diff(across[order]) == 0]
    return gaps[gaps > 0]


def _said_stride(file: H5Features) -> float | None:
    """Return the stride that a file says [px, level 0]: itself, as ours do, or by sizes and overlap."""
    if (exact := file.number("stride_level0")) is not None:
        return exact
    side, level0, overlap = file.tile_px, file.tile_level0, file.coords_attrs.get("overlap")
    if side is None or level0 is None or not isinstance(overlap, int | float):
        return None
    if not 0 <= overlap < side:
        return None
    stride = level0 - round(overlap * level0 / side)
    return float(stride) if stride > 0 else None
