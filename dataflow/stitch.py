"""Tile arrays as one slide-sized array: lazy, painted where and when it is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from dataflow.stitch_combine import Floats, commonest_of_samples, mean_of_samples
from dataflow.stitch_paint import Painter
from dataflow.stitch_source import StitchTiles, TileArray
from dataflow.stitch_spec import StitchRaster, StitchSpec, raster_of
from store_schema import names
from store_schema.chunks import Array
from store_schema.errors import InputError
from store_schema.layout import raster_array
from store_schema.slide_view import SlideView
from store_schema.specs import RasterSpec

if TYPE_CHECKING:
    import xarray as xr

_WINDOW_BYTES: Final = 96 * 2**20  # of values and sums while a window is painted


@dataclass(frozen=True)
class Stitched:
    """The stitched array of one slide: slice it, and what the slice touches is painted. Picklable.

    Attributes
    ----------
    source
        What is stitched.
    spec
        How.
    raster
        The pixels it has on this slide.
    """

    source: TileArray
    spec: StitchSpec
    raster: StitchRaster

    @classmethod
    def of(
        cls, slide: SlideView, grid: str, kind: str, run: str, array: str | None, spec: StitchSpec
    ) -> Stitched:
        """Lay the pixels over a slide; nothing is read but what the store says of it and its tiles.

        Parameters
        ----------
        slide, grid, kind, run
            The group of per-tile arrays, e.g. kind ``scores``.
        array
            Name of the array, None for the group's first.
        spec
            How.

        Raises
        ------
        NotInStoreError, IncompleteError
            There is no such group or array, or it isn't complete.
        InputError
            The array or the slide is of no kind for what is asked.
        """
        group = slide.block_group(grid, kind, run)
        group.require_complete()
        source = TileArray(
            slide.objects.url,
            slide.slide_id,
            grid,
            kind,
            run,
            next(iter(group.arrays)) if array is None else array,
            str(slide.grid_attrs(grid)[names.FINGERPRINT]),
            str(group.attrs[names.FINGERPRINT]),
        )
        tiles = source.tiles
        if spec.argmax and not tiles.by_class:
            raise InputError(
                f"{group.path}/{source.array} has no classes that one could be greatest of: leave --argmax away"
            )
        record = slide.record
        rows, columns = tiles.map_px
        finest = tiles.tile_level0 / max(rows, columns)
        stride = float(slide.grid_attrs(grid)[names.GEOMETRY]["stride_level0"])
        raster = raster_of(
            spec,
            width=record.width,
            height=record.height,
            slide_mpp=record.mpp,
            source_px_level0=finest,
            default_px_level0=stride if rows == columns == 1 else finest,
        )
        return cls(source, spec, raster)

    @property
    def dims(self) -> tuple[str, ...]:
        """``(y, x)``, or ``(class, y, x)``."""
        return ((names.CLASS,) if self._tiles.by_class else ()) + (names.Y, names.X)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        leading = (self._tiles.n_classes,) if self._tiles.by_class else ()
        return (*leading, self.raster.n_rows, self.raster.n_cols)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.dims)

    @property
    def keeps_labels(self) -> bool:
        """Whether the result is integers as the source's, 0 where there is nothing; else it is floats, and NaN."""
        return self._tiles.has_labels and self.spec.mode in ("max", "vote")

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        if not self.keeps_labels:
            return np.dtype(self.spec.float_dtype)
        return np.dtype("uint8") if self._tiles.dtype.kind == "b" else self._tiles.dtype

    @property
    def attrs(self) -> dict[str, Any]:
        """CF attributes: the source's, as far as they still hold."""
        attrs = dict(self._tiles.spec.attrs)
        if self.spec.mode == "vote" and not self.keeps_labels:
            kept = {key: attrs[key] for key in (names.CLASS_NAMES,) if key in attrs}
            what = attrs.get("long_name", self.source.array)
            return {
                **kept,
                "long_name": f"share of the votes of tiles: {what}",
                "units": "1",
                "valid_range": [0.0, 1.0],
            }
        if self._tiles.has_labels and not self.keeps_labels:  # means of flags are none
            attrs = {key: item for key, item in attrs.items() if not key.startswith("flag_")}
        return attrs

    @property
    def raster_spec(self) -> RasterSpec:
        """The array as a declaration of the store."""
        return RasterSpec(
            self.dims, self.shape, self.dtype.name, self.raster.px_level0, attrs=self.attrs
        )

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return self.source, self.spec, self.raster

    def __getitem__(self, key: Any) -> Array:
        keys = list(key) if isinstance(key, tuple) else [key]
        keys += [slice(None)] * (self.ndim - len(keys))
        *classes, in_rows, in_columns = keys
        rows, pick_rows = _hull(range(self.shape[-2])[in_rows])
        columns, pick_columns = _hull(range(self.shape[-1])[in_columns])
        values = self.stored(self.painted(rows, columns))
        if not self._tiles.by_class:
            values = values[0]
        picked: Array = values[(*classes, pick_rows, pick_columns)]
        return picked

    def painted(self, rows: slice, columns: slice) -> Floats:
        """Paint a box of pixels.

        Parameters
        ----------
        rows, columns
            Of the result, with start and stop.

        Returns
        -------
        ndarray
            float (class, y, x), one class where there are none; NaN where there is nothing.
        """
        shape = (self._tiles.n_classes, rows.stop - rows.start, columns.stop - columns.start)
        out: Floats = np.full(shape, np.nan, self._tiles.float_dtype)
        step = self._window_px
        for top in range(rows.start, rows.stop, step):
            for left in range(columns.start, columns.stop, step):
                bottom, right = min(top + step, rows.stop), min(left + step, columns.stop)
                window = self._painted_window(slice(top, bottom), slice(left, right))
                if window is not None:
                    here = slice(top - rows.start, bottom - rows.start)
                    out[:, here, left - columns.start : right - columns.start] = window
        return out

    def stored(self, painted: Floats) -> Array:
        """Return painted values as they are stored: floats, or labels with 0 where there is nothing."""
        if self.keeps_labels:
            return np.nan_to_num(painted, nan=0.0).astype(self.dtype)
        return painted.astype(self.dtype, copy=False)

    def lazy(self) -> xr.DataArray:
        """Return the array as a dask-backed one, cut as it would be stored; centres of pixels are coordinates.

        Returns
        -------
        DataArray
            (y, x) or (class, y, x); coordinates x and y [px, level 0].
        """
        import dask.array as da  # both are slow to load, and storing needs neither
        import xarray as xr

        chunks = raster_array(self.raster_spec).chunks
        if len(chunks) > 2:
            chunks = (self._tiles.n_classes, *chunks[1:])  # classes are painted together
        data = da.from_array(
            self, chunks=chunks, fancy=False, meta=np.empty((0,) * self.ndim, self.dtype)
        )
        coords = {
            dim: (dim, (np.arange(size) + 0.5) * self.raster.px_level0, {"units": "px"})
            for dim, size in ((names.Y, self.shape[-2]), (names.X, self.shape[-1]))
        }
        return xr.DataArray(data, coords, self.dims, name=self.source.array, attrs=self.attrs)

    def chunks_with_tiles(self) -> npt.NDArray[np.bool_]:
        """Return which chunks a tile reaches into, bool (chunk row, chunk column): all others are empty ground."""
        *_, rows_px, columns_px = raster_array(self.raster_spec).chunks
        n_rows, n_columns = -(-self.raster.n_rows // rows_px), -(-self.raster.n_cols // columns_px)
        table, side, px = self._tiles.table, self._tiles.tile_level0, self.raster.px_level0
        top, bottom = _reached(table.y, side, rows_px * px, n_rows)
        left, right = _reached(table.x, side, columns_px * px, n_columns)
        # corners of boxes, summed twice
        counts = np.zeros((n_rows + 1, n_columns + 1), np.int64)
        np.add.at(counts, (top, left), 1)
        np.add.at(counts, (bottom, right), 1)
        np.add.at(counts, (top, right), -1)
        np.add.at(counts, (bottom, left), -1)
        touched: npt.NDArray[np.bool_] = counts.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
        return touched

    @property
    def _tiles(self) -> StitchTiles:
        return self.source.tiles

    @cached_property
    def _window_px(self) -> int:
        """Side of what is painted at one time, in pixels of the result."""
        tiles = self._tiles
        of_a_sample = tiles.n_classes * (tiles.most_layers + 3) + 3  # values, sums, weights …
        samples = _WINDOW_BYTES / (of_a_sample * np.dtype(tiles.float_dtype).itemsize)
        return max(1, int(math.sqrt(samples)) // self.raster.samples)

    def _painted_window(self, rows: slice, columns: slice) -> Floats | None:
        samples, step = self.raster.samples, self.raster.sample_level0
        y, x = (
            (np.arange(part.start * samples, part.stop * samples) + 0.5) * step
            for part in (rows, columns)
        )
        fine = Painter(self._tiles, self.spec.mode, self.spec.vote_from).paint(y, x)
        if fine is None or samples == 1:
            return fine
        coarsen = commonest_of_samples if self.keeps_labels else mean_of_samples
        return np.stack([coarsen(of_class, samples) for of_class in fine])


def _reached(
    corners: npt.NDArray[np.int32], side: int, chunk_level0: float, n_chunks: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first chunk along an axis that each tile reaches into, and the one after its last."""
    first, last = (
        np.clip(np.floor(edge / chunk_level0), 0, n_chunks - 1).astype(np.int64)
        for edge in (corners, corners + side)
    )
    return first, last + 1


def _hull(places: int | range) -> tuple[slice, int | slice]:
    """Return the least slice that has all places, and what picks them from it."""
    if isinstance(places, int):
        return slice(places, places + 1), 0
    if not places:
        return slice(0, 0), slice(None)
    return slice(min(places), max(places) + 1), slice(None, None, places.step)
