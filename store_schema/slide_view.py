"""One slide of a store: what it holds, and how grids and runs get into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from store_schema import grids, names, selections
from store_schema.blocks import BlockGroup, block_group, create_block_group, from_attrs
from store_schema.chunks import Array
from store_schema.claims import group_attrs
from store_schema.errors import InvalidNameError, NotInStoreError
from store_schema.group_attributes import altered
from store_schema.ids import check_name
from store_schema.near_names import near
from store_schema.objects import Objects
from store_schema.raster_group import RasterGroup, create_raster_group, write_raster
from store_schema.specs import (
    ArraySpec,
    GridGeometry,
    GridSpec,
    RasterSpec,
    SlideRecord,
    TileTable,
)

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, repr=False)
class SlideView:
    """A slide of a store. Cheap, picklable, always up to date: only the address is kept."""

    objects: Objects
    slide_id: str

    def __repr__(self) -> str:
        from store_schema.inventory import slide_text

        return slide_text(self)

    @property
    def path(self) -> str:
        """Name of the slide's group."""
        return self.slide_id

    @property
    def record(self) -> SlideRecord:
        """What the store keeps of the slide."""
        attrs = group_attrs(self.objects, self.path, names.KIND_SLIDE)
        if attrs is None:
            raise NotInStoreError(f"{self.objects.url} has no slide {self.slide_id!r} any more")
        return SlideRecord(**{field.name: attrs[field.name] for field in fields(SlideRecord)})

    @property
    def grids(self) -> list[str]:
        """Names of the slide's grids."""
        return self._groups(self.path, names.KIND_GRID)

    def features(self, grid: str) -> dict[str, tuple[int, int]]:
        """Return name → (done, total) blocks of the feature sets of a grid, by listing."""
        return self._progress(grid, names.FEATURES)

    def scores(self, grid: str) -> dict[str, tuple[int, int]]:
        """Return name → (done, total) blocks of the score runs of a grid, by listing."""
        return self._progress(grid, names.SCORES)

    def grid_attrs(self, grid: str) -> dict[str, Any]:
        """Return what the store says of a grid.

        Returns
        -------
        dict
            ``spec``, ``geometry``, ``counts``, ``n_tiles``, ``block_tiles``, ``fingerprint``,
            ``provenance``.

        Raises
        ------
        NotInStoreError
            If the slide has no such grid; names near ones.
        """
        try:
            attrs = group_attrs(self.objects, self.grid_path(grid), names.KIND_GRID)
        except InvalidNameError:
            attrs = None
        if attrs is None:
            raise NotInStoreError(
                f"slide {self.slide_id} has no grid {grid!r}: {near(grid, self.grids)}"
            )
        return attrs

    def grid_path(self, grid: str) -> str:
        """Return the path of a grid's group, whether it is there or not."""
        return f"{self.path}/{check_name(grid, 'grid name')}"

    def grid_complete(self, grid: str) -> bool:
        """Tell whether a grid is wholly written; False too if there is none."""
        attrs = group_attrs(self.objects, self.grid_path(grid), names.KIND_GRID)
        return attrs is not None and grids.is_complete(self.objects, self.grid_path(grid), attrs)

    def grid_sound(self, grid: str) -> bool:
        """Tell by reading it whether a grid, its coordinates and masks, is all there and passes its checksums."""
        return grids.is_sound(self.objects, self.grid_path(grid))

    def tile_table(self, grid: str) -> TileTable:
        """Read a grid's tiles, in stored order.

        Raises
        ------
        NotInStoreError, IncompleteError
            If there is no such grid, or it isn't wholly written yet.
        """
        return grids.read_tile_table(self.objects, self.grid_path(grid), self.grid_attrs(grid))

    def create_grid(
        self,
        spec: GridSpec,
        geometry: GridGeometry,
        table: TileTable,
        provenance: Mapping[str, Any],
        *,
        counts: Mapping[str, int] | None = None,
        rasters: Mapping[str, tuple[RasterSpec, Array]] | None = None,
        block_tiles: int = names.DEFAULT_BLOCK_TILES,
        overwrite: bool = False,
    ) -> None:
        """Write a grid: the same again is a no-op, an interrupted or damaged one is completed.

        Parameters
        ----------
        spec
            What was asked; its ``name`` names the group.
        geometry
            What it comes to on this slide.
        table
            The kept tiles, in an order that makes a block of consecutive tiles a compact region.
        provenance
            What decides the tiles; JSON-able.
        counts
            Anything worth counting, e.g. lattice places looked at.
        rasters
            ``masks/<name>`` groups to write with it, e.g. ``tissue``: the mask that the grid was
            made from.
        block_tiles
            Tiles of a block: of one task, one stored object.
        overwrite
            Delete a grid of that name that was made otherwise, or whose document is damaged, with all features and
            scores on it.

        Raises
        ------
        SettingsConflictError
            If a grid of that name was made otherwise; names what differs.
        """
        grids.create_grid(
            self.objects,
            self.path,
            spec,
            geometry,
            table,
            provenance=provenance,
            counts=counts,
            rasters=rasters,
            block_tiles=block_tiles,
            overwrite=overwrite,
        )

    def create_tile_group(
        self,
        grid: str,
        kind: str,
        name: str,
        arrays: Mapping[str, ArraySpec],
        provenance: Mapping[str, Any],
        *,
        extra: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> BlockGroup:
        """Claim ``features/<name>`` or ``scores/<name>``; see :func:`create_block_group`."""
        attrs = self.grid_attrs(grid)
        return create_block_group(
            self.objects,
            self.grid_path(grid),
            kind,
            name,
            arrays,
            provenance=provenance,
            n_tiles=attrs[names.N_TILES],
            block_tiles=attrs[names.BLOCK_TILES],
            extra=extra,
            overwrite=overwrite,
        )

    def block_group(self, grid: str, kind: str, name: str) -> BlockGroup:
        """Return a group of per-tile arrays.

        Raises
        ------
        NotInStoreError
            If there is no such grid or group; names near ones.
        DamagedMetadataError
            If the documents of group and grid don't agree on the tiles.
        """
        attrs, path = self.run_attrs(grid, kind, name), f"{self.grid_path(grid)}/{kind}/{name}"
        of_grid = self.grid_attrs(grid)
        for key in (names.N_TILES, names.BLOCK_TILES):
            if attrs[key] != of_grid[key]:
                raise altered(
                    self.objects.url, path, f"{key} is {attrs[key]}, of its grid {of_grid[key]}"
                )
        return from_attrs(self.objects, path, attrs)

    def tiles(
        self,
        grid: str | None = None,
        *,
        features: str | Literal[False] | None = None,
        scores: str | Literal[False] | None = None,
        allow_incomplete: bool = False,
    ) -> xr.Dataset:
        """Return the slide's tiles as a lazy dataset.

        Parameters
        ----------
        grid
            Name of the grid; None takes the only one.
        features, scores
            Which feature set and score run to have with it: a name, False for none, None for the only one (if any).
            Of several feature sets one must be named; of several score runs none is taken.
        allow_incomplete
            Accept groups that aren't complete; what is missing reads as NaN, or as the fill value of integers.

        Returns
        -------
        Dataset
            Dimension ``tile``, in stored order. Coordinates x, y [px, level 0], row, col; variables ``tissue``
            and the arrays of the runs, dask-backed with one chunk a block. ``ds.sel(x=…, y=…)`` finds tiles by
            corner, ``ds.tiles`` has regions, lattice pictures and pixels. An array of the score run whose name is
            taken is called ``<run>_<array>``.

        Raises
        ------
        NotInStoreError
            If there is no such grid, feature set or run; names near ones.
        InputError
            If there are several grids or feature sets to choose from and none was named.
        IncompleteError
            If a group isn't complete, unless that is allowed; says how far it is.
        """
        from store_schema.views import tiles  # xarray and dask, which writers don't need

        return tiles(
            self, grid, features=features, scores=scores, allow_incomplete=allow_incomplete
        )

    def raster(self, grid: str, name: str) -> xr.Dataset:
        """Return ``masks/<name>`` of a grid as a lazy dataset.

        Returns
        -------
        Dataset
            Dimensions (…, y, x) with the pixels' centres [px, level 0] as coordinates.

        Raises
        ------
        NotInStoreError, IncompleteError
            If there is no such group, or it isn't wholly written yet.
        DamagedBlockError
            If the group has lost chunks: they would read as empty ground.
        """
        from store_schema.views import raster

        return raster(self, grid, name)

    def create_raster_group(
        self,
        grid: str,
        name: str,
        arrays: Mapping[str, RasterSpec],
        provenance: Mapping[str, Any],
        *,
        extra: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> RasterGroup:
        """Claim ``masks/<name>``, to be written chunk by chunk; see :func:`create_raster_group`."""
        self._check_not_of_grid(grid, name)
        return create_raster_group(
            self.objects,
            self.grid_path(grid),
            name,
            arrays,
            provenance=provenance,
            extra=extra,
            overwrite=overwrite,
        )

    def write_raster(
        self,
        grid: str,
        name: str,
        arrays: Mapping[str, tuple[RasterSpec, Array]],
        provenance: Mapping[str, Any],
        *,
        extra: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write ``masks/<name>`` whole, the same again is a no-op; see :func:`raster_group.write_raster`."""
        self._check_not_of_grid(grid, name)
        write_raster(
            self.objects,
            self.grid_path(grid),
            name,
            arrays,
            provenance=provenance,
            extra=extra,
            overwrite=overwrite,
        )

    def _check_not_of_grid(self, grid: str, name: str) -> None:
        """Refuse the name of a raster that came with the grid: its tiles were laid by it."""
        if name in self.grid_attrs(grid)[names.RASTERS]:
            raise InvalidNameError(
                f"{names.MASKS} name {name!r} is that of a mask which came with the grid {grid}: choose another name"
            )

    def write_selection(
        self,
        grid: str,
        name: str,
        tile_index: npt.NDArray[np.int32],
        rank_score: npt.NDArray[np.float32],
        provenance: Mapping[str, Any],
        *,
        extra: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write ``selections/<name>`` whole, the same again is a no-op; see :func:`selections.write_selection`."""
        n_tiles = self.grid_attrs(grid)[names.N_TILES]
        selections.write_selection(
            self.objects,
            self.grid_path(grid),
            name,
            tile_index,
            rank_score,
            n_tiles=n_tiles,
            provenance=provenance,
            extra=extra,
            overwrite=overwrite,
        )

    def selection(
        self, grid: str, name: str
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Return (tile_index, rank_score) of a selection; NotInStoreError or IncompleteError if it isn't there."""
        attrs = self.run_attrs(grid, names.SELECTIONS, name)
        return selections.read_selection(
            self.objects, f"{self.grid_path(grid)}/{names.SELECTIONS}/{name}", attrs
        )

    def run_attrs(self, grid: str, kind: str, name: str) -> dict[str, Any]:
        """Return what the store says of a group of a grid.

        Raises
        ------
        NotInStoreError
            If there is no such grid or group; names near ones.
        """
        try:
            path = f"{self.grid_path(grid)}/{kind}/{check_name(name)}"
            attrs = group_attrs(self.objects, path, kind)
        except InvalidNameError:
            attrs = None
        if attrs is None:
            self.grid_attrs(grid)  # says so if it is the grid that isn't there
            raise NotInStoreError(
                f"{self.grid_path(grid)} has no {kind} {name!r}: {near(name, self.runs(grid, kind))}"
            )
        return attrs

    def runs(self, grid: str, kind: str) -> list[str]:
        """Return the names of a grid's groups of one kind (features, scores, selections, masks)."""
        return self._groups(f"{self.grid_path(grid)}/{kind}", kind)

    def _groups(self, path: str, kind: str) -> list[str]:
        return [
            name
            for name in self.objects.children(path)
            if group_attrs(self.objects, f"{path}/{name}", kind) is not None
        ]

    def _progress(self, grid: str, kind: str) -> dict[str, tuple[int, int]]:
        path = f"{self.grid_path(grid)}/{kind}"
        runs = self.runs(grid, kind)
        return {name: block_group(self.objects, f"{path}/{name}").done() for name in runs}
