"""One slide of a store: what it holds, and how grids and runs get into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from store_schema import grids, names
from store_schema.blocks import BlockGroup, block_group, create_block_group
from store_schema.chunks import Array
from store_schema.claims import group_attrs
from store_schema.errors import InvalidNameError, NotInStoreError
from store_schema.ids import check_name
from store_schema.near_names import near
from store_schema.objects import Objects
from store_schema.specs import (
    ArraySpec,
    GridGeometry,
    GridSpec,
    RasterSpec,
    SlideRecord,
    TileTable,
)


@dataclass(frozen=True)
class SlideView:
    """A slide of a store. Cheap, picklable, always up to date: only the address is kept."""

    objects: Objects
    slide_id: str

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
        """Write a grid: the same again is a no-op, an interrupted one is completed.

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
            Delete a grid of that name first, with all features and scores on it.

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
        """
        self.grid_attrs(grid)
        known = self.runs(grid, kind)
        if name not in known:
            raise NotInStoreError(
                f"{self.grid_path(grid)} has no {kind} {name!r}: {near(name, known)}"
            )
        return block_group(self.objects, f"{self.grid_path(grid)}/{kind}/{name}")

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
