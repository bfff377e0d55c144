"""``ds.tiles``: what can be asked of a dataset of tiles, however it was selected from its slide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from store_schema import names
from store_schema.errors import InputError
from store_schema.pixel_source import PixelSource, load_pixel_source

if TYPE_CHECKING:
    from store_schema.slide_view import SlideView

PIXEL_CHUNK_BYTES = (
    8 * 2**20
)  # pixels are decoded this much at a time: looking at one tile stays quick


def dataset_attrs(slide: SlideView, grid: str, grid_attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat attributes of a dataset of tiles; they survive selection.

    Parameters
    ----------
    slide, grid
        Where the tiles are from.
    grid_attrs
        What the store says of the grid.
    """
    record, spec = slide.record, grid_attrs[names.SPEC]
    attrs = {
        "store": slide.objects.url,
        "slide_id": slide.slide_id,
        "source": record.source,
        "slide_mpp": record.mpp,
        "slide_fingerprint": record.fingerprint,
        "grid": grid,
        "tile_px": spec["tile_px"],
        "mpp": spec["mpp"],
        **grid_attrs[names.GEOMETRY],
    }
    return {name: value for name, value in attrs.items() if value is not None}


@xr.register_dataset_accessor("tiles")  # type: ignore[no-untyped-call]
class TilesAccessor:
    """Regions, lattice pictures and pixels of a dataset of tiles. All positions are [px, level 0]."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def in_bbox(self, x0: float, y0: float, x1: float, y1: float) -> xr.Dataset:
        """Return the tiles that share ground with a box.

        Parameters
        ----------
        x0, y0, x1, y1
            The box [x0, x1) by [y0, y1), px of level 0. A tile that only touches its border is outside.

        Returns
        -------
        Dataset
            The tiles whose square intersects the box, in stored order; maybe none.

        Raises
        ------
        InputError
            If the box is empty.
        """
        if not (x0 < x1 and y0 < y1):
            raise InputError(
                f"the box from ({x0:g}, {y0:g}) to ({x1:g}, {y1:g}) is empty: x0 < x1 and y0 < y1"
            )
        x, y, side = self._corners()
        return self._take((x < x1) & (x + side > x0) & (y < y1) & (y + side > y0))

    def at(self, x: float, y: float) -> xr.Dataset:
        """Return the tiles that cover a point: none, one, or several where tiles overlap."""
        left, top, side = self._corners()
        return self._take((left <= x) & (x < left + side) & (top <= y) & (y < top + side))

    def to_grid(self, name: str) -> xr.DataArray:
        """Put a variable's tiles at their places in the slide's lattice.

        Parameters
        ----------
        name
            A variable of the dataset. It is read.

        Returns
        -------
        DataArray
            (row, col, …) over the whole lattice, NaN where there is no tile (integers become float32), with
            coordinates ``y`` along row and ``x`` along col: the places' top-left corners [px, level 0].

        Raises
        ------
        InputError
            If there is no such variable, or it isn't per tile.
        """
        if name not in self._dataset or self._dataset[name].dims[:1] != (names.TILE,):
            known = [
                str(n) for n, v in self._dataset.data_vars.items() if v.dims[:1] == (names.TILE,)
            ]
            raise InputError(f"there is no variable {name!r} by tile: there are {', '.join(known)}")
        variable = self._dataset[name]
        values = variable.values
        dtype = values.dtype if values.dtype.kind == "f" else np.dtype(np.float32)
        rows, cols = int(self._attr("n_rows")), int(self._attr("n_cols"))
        lattice = np.full((rows, cols, *values.shape[1:]), np.nan, dtype=dtype)
        lattice[self._dataset[names.ROW].values, self._dataset[names.COL].values] = values
        stride = float(self._attr("stride_level0"))
        return xr.DataArray(
            lattice,
            dims=(names.ROW, names.COL, *variable.dims[1:]),
            coords={
                names.Y: (names.ROW, np.rint(np.arange(rows) * stride).astype(np.int32)),
                names.X: (names.COL, np.rint(np.arange(cols) * stride).astype(np.int32)),
            },
            name=name,
            attrs=variable.attrs,
        )

    def pixels(self, source: str | None = None) -> xr.DataArray:
        """Return the tiles' pixels, read from the slide when they are computed.

        Parameters
        ----------
        source
            The slide's file, where it isn't any more where the store remembers it.

        Returns
        -------
        DataArray
            uint8 (tile, y, x, rgb), dask-backed; corners are the coordinates ``x_level0`` and ``y_level0``.
            Computing it raises SlideChangedError when the file is not the one that the tiles were laid on.

        Raises
        ------
        InputError
            If no slide reader is installed.
        """
        reader = load_pixel_source()
        x, y, side = self._corners()
        tile_px = int(self._attr("tile_px"))
        chunk_tiles = max(1, PIXEL_CHUNK_BYTES // (tile_px * tile_px * 3))
        data = da.map_blocks(
            _read_pixels,
            da.from_array(x, chunks=chunk_tiles),
            da.from_array(y, chunks=chunk_tiles),
            new_axis=[1, 2, 3],
            chunks=(
                da.core.normalize_chunks(chunk_tiles, x.shape)[0],
                (tile_px,),
                (tile_px,),
                (3,),
            ),
            dtype=np.uint8,
            meta=np.empty((0, 0, 0, 0), np.uint8),
            reader=reader,
            source=source if source is not None else self._attr("source"),
            tile_px=tile_px,
            tile_level0=side,
            mpp=float(self._attr("mpp")),
            slide_mpp=float(self._attr("slide_mpp")),
            fingerprint=str(self._attr("slide_fingerprint")),
        )
        place = {
            f"{name}_level0": (names.TILE, values, {"units": "px"})
            for name, values in ((names.X, x), (names.Y, y))
        }
        dims = (names.TILE, names.Y, names.X, names.RGB)
        return xr.DataArray(data, dims=dims, coords=place, name="pixels", attrs={"units": "1"})

    def _corners(
        self,
    ) -> tuple[np.ndarray[Any, np.dtype[np.int32]], np.ndarray[Any, np.dtype[np.int32]], int]:
        x, y = (np.atleast_1d(self._dataset[name].values) for name in (names.X, names.Y))
        return x, y, int(self._attr("tile_level0"))

    def _take(self, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> xr.Dataset:
        return self._dataset.isel({names.TILE: np.flatnonzero(mask)})

    def _attr(self, name: str) -> Any:
        try:
            return self._dataset.attrs[name]
        except KeyError as error:
            raise InputError(
                f"this dataset has no attribute {name!r}: take it from store[slide].tiles(grid) and keep its attributes"
            ) from error


def _read_pixels(
    x: np.ndarray[Any, np.dtype[np.int32]],
    y: np.ndarray[Any, np.dtype[np.int32]],
    *,
    reader: PixelSource,
    source: str,
    tile_px: int,
    tile_level0: int,
    mpp: float,
    slide_mpp: float,
    fingerprint: str,
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return reader(
        source,
        x,
        y,
        tile_px=tile_px,
        tile_level0=tile_level0,
        mpp=mpp,
        slide_mpp=slide_mpp,
        fingerprint=fingerprint,
    )
