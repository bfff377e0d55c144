"""One slide's grid: its tiles in stored order, and what made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from store_schema import names
from store_schema.chunks import Array, read_blocks, write_array
from store_schema.claims import claim, ensure_array, group_attrs
from store_schema.errors import IncompleteError, SettingsConflictError
from store_schema.ids import check_name
from store_schema.layout import GRID_ARRAYS, grid_array, raster_array
from store_schema.objects import Objects
from store_schema.specs import GridGeometry, GridSpec, RasterSpec, TileTable, fingerprint
from store_schema.whole_groups import write_whole_group

# read by xarray (CF): which variables of the group are coordinates
FOREIGN = {names.COORDINATES: " ".join(names.GRID_COORDINATES)}


def create_grid(
    objects: Objects,
    slide_path: str,
    spec: GridSpec,
    geometry: GridGeometry,
    table: TileTable,
    *,
    provenance: Mapping[str, Any],
    counts: Mapping[str, int] | None = None,
    rasters: Mapping[str, tuple[RasterSpec, Array]] | None = None,
    block_tiles: int = names.DEFAULT_BLOCK_TILES,
    overwrite: bool = False,
) -> None:
    """Write a grid; see :meth:`store_schema.store.SlideView.create_grid`."""
    path = f"{slide_path}/{check_name(spec.name, 'grid name')}"
    if block_tiles < 1:
        raise ValueError(f"block_tiles is at least 1, not {block_tiles}")
    attrs = claim(
        objects,
        path,
        {
            names.KIND: names.KIND_GRID,
            names.FINGERPRINT: fingerprint(provenance),
            names.PROVENANCE: provenance,
            names.SPEC: spec.to_json(),
            names.GEOMETRY: asdict(geometry),
            names.COUNTS: dict(counts or {}),
            names.N_TILES: len(table),
            names.BLOCK_TILES: block_tiles,
            names.RASTERS: sorted(rasters or {}),
        },
        compare=(names.PROVENANCE, names.BLOCK_TILES),
        foreign=FOREIGN,
        overwrite=overwrite,
    )
    if is_complete(objects, path, attrs):
        return
    if attrs[names.N_TILES] != len(table):
        raise SettingsConflictError(
            f"{path} was begun with {attrs[names.N_TILES]} tiles and has {len(table)} now: "
            "pass --overwrite"
        )
    for name, raster in (rasters or {}).items():
        write_raster(objects, path, name, {names.MASK: raster}, provenance=provenance)
    for name in reversed(list(GRID_ARRAYS)):
        layout = grid_array(name, len(table))
        values = np.asarray(getattr(table, name), dtype=layout.dtype)
        ensure_array(objects, f"{path}/{name}", layout)
        write_array(objects, f"{path}/{name}", layout, values)


def is_complete(objects: Objects, path: str, attrs: Mapping[str, Any]) -> bool:
    """Tell by listing whether a grid's arrays and masks are all there."""
    for name in GRID_ARRAYS:
        layout = grid_array(name, attrs[names.N_TILES])
        keys = objects.sizes(f"{path}/{name}")
        wanted = [layout.key((block,)) for block in range(layout.grid[0])]
        if any(f"{path}/{name}/{key}" not in keys for key in ("zarr.json", *wanted)):
            return False
    for name in attrs[names.RASTERS]:
        mask = group_attrs(objects, f"{path}/{names.MASKS}/{name}", names.MASKS)
        if mask is None or not mask[names.COMPLETE]:
            return False
    return True


def read_tile_table(objects: Objects, path: str, attrs: Mapping[str, Any]) -> TileTable:
    """Read a grid's tiles.

    Raises
    ------
    IncompleteError
        If the grid isn't wholly written yet.
    """
    try:
        columns = {
            name: read_blocks(objects, f"{path}/{name}", grid_array(name, attrs[names.N_TILES]))
            for name in GRID_ARRAYS
        }
    except IncompleteError as error:
        raise IncompleteError(
            f"{path} is not wholly written yet: run the command that indexes the slide again"
        ) from error
    return TileTable(**columns)  # type: ignore[arg-type]  # dtypes are those of GRID_ARRAYS


def write_raster(
    objects: Objects,
    path: str,
    name: str,
    arrays: Mapping[str, tuple[RasterSpec, Array]],
    *,
    provenance: Mapping[str, Any],
    overwrite: bool = False,
) -> None:
    """Write ``masks/<name>`` of a grid; see :meth:`store_schema.slide_view.SlideView.write_raster`."""
    places = {(spec.px_level0, spec.origin_level0, spec.shape[-2:]) for spec, _ in arrays.values()}
    if len(places) != 1:
        raise ValueError(f"the arrays of masks/{name} lie on one raster, not on {len(places)}")
    spec = next(iter(arrays.values()))[0]
    write_whole_group(
        objects,
        path,
        names.MASKS,
        name,
        {array: (raster_array(raster), values) for array, (raster, values) in arrays.items()},
        provenance=provenance,
        facts={names.PX_LEVEL0: spec.px_level0, names.ORIGIN_LEVEL0: list(spec.origin_level0)},
        overwrite=overwrite,
    )
