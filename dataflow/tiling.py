"""The lattice of tiles on a slide: geometry, tissue under each tile, stored order."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dataflow.hilbert import hilbert_index
from dataflow.physical_size import require_mpp
from dataflow.resample import overlap_matrix
from dataflow.slide import UPSAMPLING_TOLERANCE, SlideInfo
from store_schema.errors import InputError, TooCoarseError
from store_schema.specs import EdgeMode, GridGeometry, GridSpec, TileTable

MAX_LATTICE_TILES = 50_000_000  # a whole slide of 200,000 px a side in 28 px steps
_FRACTION_ROUNDING = 1e-6


class MaskLike(Protocol):
    """A tissue mask that covers the slide from its level-0 origin."""

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """uint8 (y, x), not 0 where there is tissue."""
        ...

    @property
    def px_level0(self) -> float:
        """Side of a mask pixel [px, level 0]."""
        ...


def grid_geometry(info: SlideInfo, spec: GridSpec) -> GridGeometry:
    """Work out what a grid comes to on one slide.

    Parameters
    ----------
    info
        The slide; its mpp must be known.
    spec
        What is asked for.

    Returns
    -------
    GridGeometry
        The square of a tile is whole level-0 pixels; the stride is exact and fractional, so that
        corners ``round(index * stride)`` do not drift.

    Raises
    ------
    MissingMppError
        The slide has no usable pixel size.
    TooCoarseError
        The slide is more than 1 % coarser than the requested mpp.
    InputError
        The spec itself makes no sense, or makes too many tiles.
    """
    mpp = check_spec(spec)
    slide_mpp = require_mpp(info)
    if mpp < slide_mpp * (1 - UPSAMPLING_TOLERANCE):
        raise TooCoarseError(
            f"{info.path}: the slide has {slide_mpp:.4g} µm/px, {mpp:g} is asked for, and "
            f"detail can't be made up; ask for --mpp {slide_mpp:.4g} or coarser"
        )
    tile_level0 = max(1, round(spec.tile_px * mpp / slide_mpp))
    stride_level0 = spec.stride_px * mpp / slide_mpp
    n_cols = _count(info.width, tile_level0, stride_level0, spec.edge)
    n_rows = _count(info.height, tile_level0, stride_level0, spec.edge)
    if n_cols * n_rows > MAX_LATTICE_TILES:
        raise InputError(
            f"{info.path}: {n_cols} x {n_rows} tiles are more than {MAX_LATTICE_TILES:,}; "
            "ask for a larger stride, or a coarser --mpp"
        )
    return GridGeometry(tile_level0, stride_level0, n_rows, n_cols)


def check_spec(spec: GridSpec) -> float:
    """Return the mpp that a grid spec asks for; InputError when the spec makes no sense by itself."""
    if spec.tile_px < 1:
        raise InputError(f"a tile of {spec.tile_px} px is too small; give at least 1")
    if not 1 <= spec.stride_px <= spec.tile_px:
        raise InputError(
            f"a stride of {spec.stride_px} px does not fit tiles of {spec.tile_px} px; "
            "give 1 up to the tile size"
        )
    if spec.mpp is None or not (math.isfinite(spec.mpp) and spec.mpp > 0):
        raise InputError(f"--mpp {spec.mpp} is no size of a pixel; give a positive number of µm")
    if not 0 <= spec.min_tissue <= 1:
        raise InputError(f"a tissue fraction of {spec.min_tissue:g} is not within 0 to 1")
    return spec.mpp


def lattice_corners(n: int, stride_level0: float) -> npt.NDArray[np.int32]:
    """Corners of the first ``n`` tiles along one axis, int32 (n,) [px, level 0]."""
    corners: npt.NDArray[np.float64] = np.rint(np.arange(n) * stride_level0)
    return corners.astype(np.int32)


def make_tiles(
    info: SlideInfo, spec: GridSpec, mask: MaskLike | None
) -> tuple[GridGeometry, TileTable]:
    """List the tiles of a slide that are kept.

    Parameters
    ----------
    info
        The slide; its mpp must be known.
    spec
        What is asked for. A tile is kept when its tissue fraction is at least
        ``spec.min_tissue``; 0 keeps all.
    mask
        Where there is tissue; None when all of the slide counts as tissue.

    Returns
    -------
    geometry
        The whole lattice.
    table
        Kept tiles in Hilbert order: any 1024 in a row are a compact region of the slide. May be
        empty.

    Raises
    ------
    MissingMppError, TooCoarseError, InputError
        As :func:`grid_geometry`.
    """
    geometry = grid_geometry(info, spec)
    tissue = tissue_fractions(info, geometry, mask)
    row, col = np.nonzero(tissue >= spec.min_tissue - _FRACTION_ROUNDING)
    order = np.argsort(hilbert_index(col, row), kind="stable")
    row, col = row[order], col[order]
    return geometry, TileTable(
        x=lattice_corners(geometry.n_cols, geometry.stride_level0)[col],
        y=lattice_corners(geometry.n_rows, geometry.stride_level0)[row],
        row=row.astype(np.int32),
        col=col.astype(np.int32),
        tissue=tissue[row, col],
    )


def tissue_fractions(
    info: SlideInfo, geometry: GridGeometry, mask: MaskLike | None
) -> npt.NDArray[np.float32]:
    """Share of each tile of the lattice that is tissue.

    Parameters
    ----------
    info, geometry
        The slide and its lattice.
    mask
        Where there is tissue; None when all of the slide counts as tissue.

    Returns
    -------
    array
        float32 (n_rows, n_cols), 0 to 1: tissue area over the area of the whole tile, so what
        a padded tile has beyond the border counts as no tissue. Exact: mask pixels that a tile
        covers in part count in part.
    """
    pixels = np.ones((1, 1), np.float32) if mask is None else (mask.mask > 0).astype(np.float32)
    n_y, n_x = pixels.shape
    # without a mask, its one pixel is stretched over the slide
    px_x = info.width if mask is None else mask.px_level0
    px_y = info.height if mask is None else mask.px_level0
    x = lattice_corners(geometry.n_cols, geometry.stride_level0).astype(np.float64)
    y = lattice_corners(geometry.n_rows, geometry.stride_level0).astype(np.float64)
    side = geometry.tile_level0
    along_x = overlap_matrix(x / px_x, np.minimum(x + side, info.width) / px_x, n_x)
    along_y = overlap_matrix(y / px_y, np.minimum(y + side, info.height) / px_y, n_y)
    covered_px: npt.NDArray[np.float64] = (along_x @ (along_y @ pixels).T).T
    fractions = covered_px * (px_x * px_y / side**2)
    return fractions.clip(0.0, 1.0).astype(np.float32)


def _count(size_level0: int, tile_level0: int, stride_level0: float, edge: EdgeMode) -> int:
    """Tiles along one axis: those that fit (drop), or those that begin on the slide (pad)."""
    corners = np.rint(np.arange(math.ceil(size_level0 / stride_level0) + 1) * stride_level0)
    fits = corners < size_level0 if edge == "pad" else corners + tile_level0 <= size_level0
    return int(np.count_nonzero(fits))
