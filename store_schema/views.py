"""Lazy xarray views of a grid and the runs on it: a block is a dask chunk, read when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from store_schema import accessor, names
from store_schema.blocks import BlockGroup
from store_schema.chunks import Array, read_blocks
from store_schema.errors import DamagedBlockError, IncompleteError, InputError, NotInStoreError
from store_schema.grids import raster_layouts, read_tile_table
from store_schema.layout import GRID_ARRAYS, ArrayLayout
from store_schema.raster_group import lost_chunks, stored_chunks
from store_schema.slide_view import SlideView
from store_schema.storage import zarr_store
from store_schema.tile_index import TileIndex

Choice = str | Literal[False] | None


@dataclass(frozen=True)
class BlockArray:
    """One array of a block group as something to slice: reads the blocks that a slice touches, and no others."""

    group: BlockGroup
    name: str
    allow_missing: bool

    @property
    def layout(self) -> ArrayLayout:
        """How it is stored."""
        return self.group.layouts[self.name]

    @property
    def shape(self) -> tuple[int, ...]:
        """(tile, …)."""
        return self.layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As declared."""
        return np.dtype(self.layout.dtype)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        group = self.group
        return group.url, group.path, self.name, group.attrs[names.FINGERPRINT], self.allow_missing

    def __getitem__(self, key: Any) -> Array:
        first, *rest = key if isinstance(key, tuple) else (key,)
        tiles = np.arange(self.shape[0])[first]
        if not tiles.size:
            nothing: Array = np.empty((0, *self.shape[1:]), self.dtype)
            return nothing[(slice(None), *rest)]
        step = self.group.block_tiles
        start, stop = int(tiles.min()) // step, int(tiles.max()) // step + 1
        values = read_blocks(
            self.group.objects,
            f"{self.group.path}/{self.name}",
            self.layout,
            range(start, stop),
            allow_missing=self.allow_missing,
        )
        # a whole chunk, which is what dask mostly asks for, is not copied
        whole = isinstance(first, slice) and first.step in (None, 1) and tiles.size == len(values)
        rows = slice(None) if whole else tiles - start * step
        part: Array = values[(rows, *rest)]
        return part

    def lazy(self) -> xr.Variable:
        """Return the array as a dask-backed variable, one chunk a block."""
        chunks = tuple(
            chunk if size else 1 for chunk, size in zip(self.layout.chunks, self.shape, strict=True)
        )
        data = da.from_array(
            self, chunks=chunks, fancy=False, meta=np.empty((0,) * self.ndim, self.dtype)
        )
        return xr.Variable(self.layout.dims, data, attrs=dict(self.layout.attrs))


def tiles(
    slide: SlideView,
    grid: str | None = None,
    *,
    features: Choice = None,
    scores: Choice = None,
    allow_incomplete: bool = False,
) -> xr.Dataset:
    """Return a slide's tiles as a lazy dataset; see :meth:`store_schema.slide_view.SlideView.tiles`."""
    grid = only(slide.grids, f"slide {slide.slide_id}", "grid") if grid is None else grid
    attrs = slide.grid_attrs(grid)
    table = read_tile_table(slide.objects, slide.grid_path(grid), attrs)
    variables: dict[str, xr.Variable] = {
        name: xr.Variable((names.TILE,), getattr(table, name), attrs=dict(GRID_ARRAYS[name][1]))
        for name in GRID_ARRAYS
    }
    for kind, choice in ((names.FEATURES, features), (names.SCORES, scores)):
        name = _chosen(slide, grid, kind, choice)
        if name is None:
            continue
        group = slide.block_group(grid, kind, name)
        if not allow_incomplete:
            group.require_complete()
        for array in group.arrays:
            # both an encoder and a scorer may say how tiles were stained
            label = array if array not in variables else f"{name}_{array}"
            variables[label] = BlockArray(group, array, allow_incomplete).lazy()
    coords = {name: variables.pop(name) for name in names.GRID_COORDINATES}
    dataset = xr.Dataset(variables, coords, attrs=accessor.dataset_attrs(slide, grid, attrs))
    return dataset.set_xindex([names.X, names.Y], TileIndex)


def raster(slide: SlideView, grid: str, name: str) -> xr.Dataset:
    """Return a mask group as a lazy dataset; see :meth:`store_schema.slide_view.SlideView.raster`."""
    attrs = slide.run_attrs(grid, names.MASKS, name)
    path = f"{slide.grid_path(grid)}/{names.MASKS}/{name}"
    if not attrs[names.COMPLETE]:
        raise IncompleteError(
            f"{path} is not wholly written yet: run the same command again to complete it"
        )
    # says what is damaged, where zarr would stumble, and what is lost, where it would read empty ground
    for array, layout in raster_layouts(slide.objects, path, attrs).items():
        stored = stored_chunks(slide.objects, f"{path}/{array}", layout)
        if lost_chunks(attrs, array, len(stored)):
            raise DamagedBlockError(
                f"{path}/{array} has {len(stored)} of its {attrs[names.CHUNKS][array]} chunks: "
                "run the same command again, it makes lost chunks anew"
            )
    store = zarr_store(slide.objects)
    dataset: xr.Dataset = xr.open_zarr(store, group=path, consolidated=False, chunks={})
    origin = dict(zip((names.X, names.Y), attrs[names.ORIGIN_LEVEL0], strict=True))
    centres = {
        dim: (
            dim,
            origin[dim] + (np.arange(dataset.sizes[dim]) + 0.5) * attrs[names.PX_LEVEL0],
            {"units": "px"},
        )
        for dim in (names.Y, names.X)
    }
    return dataset.assign_coords(centres)


def only(known: Sequence[str], where: str, what: str) -> str:
    """Return the one name there is, or say that one must be named."""
    if not known:
        raise NotInStoreError(f"{where} has no {what} yet: run the command that makes it first")
    if len(known) > 1:
        raise InputError(f"{where} has more than one {what} ({', '.join(known)}): name one")
    return known[0]


def _chosen(slide: SlideView, grid: str, kind: str, choice: Choice) -> str | None:
    if choice is False:
        return None
    if choice is not None:
        return choice
    runs = slide.runs(grid, kind)
    if not runs or (
        kind == names.SCORES and len(runs) > 1
    ):  # a second run must not break what reads tiles
        return None
    return only(runs, slide.grid_path(grid), f"{kind} group; {kind}=False takes none")
