"""One slide's grid: its tiles in stored order, and what made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from store_schema import names
from store_schema.chunks import Array, read_blocks, write_array
from store_schema.claims import claim, ensure_array, group_attrs, read_node, says
from store_schema.errors import (
    DamagedBlockError,
    DamagedMetadataError,
    IncompleteError,
    SettingsConflictError,
)
from store_schema.group_attributes import altered, unreadable
from store_schema.ids import check_name
from store_schema.layout import GRID_ARRAYS, ArrayLayout, grid_array, raster_array
from store_schema.objects import Objects
from store_schema.raster_group import lost_chunks, stored_chunks, write_raster
from store_schema.soundness import array_is_sound
from store_schema.specs import GridGeometry, GridSpec, RasterSpec, TileTable, fingerprint

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
    made_by = (names.PROVENANCE, names.BLOCK_TILES)
    follows = (names.SPEC, names.GEOMETRY, names.COUNTS, names.N_TILES, names.RASTERS)
    claim(
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
        # a grid that is sound settles what follows from the settings, one that isn't may be wrong in that, too
        compare=made_by if is_sound(objects, path) else (*made_by, *follows),
        foreign=FOREIGN,
        overwrite=overwrite,
    )
    if is_sound(objects, path):
        return
    layouts = {name: grid_array(name, len(table)) for name in GRID_ARRAYS}
    values = {
        name: np.asarray(getattr(table, name), dtype=layout.dtype)
        for name, layout in layouts.items()
    }
    _check_same_tiles(objects, path, layouts, values)
    for name, raster in (rasters or {}).items():
        write_raster(
            objects, path, name, {names.MASK: raster}, provenance=provenance, overwrite=overwrite
        )
    for name in reversed(list(GRID_ARRAYS)):
        ensure_array(objects, f"{path}/{name}", layouts[name])
        write_array(objects, f"{path}/{name}", layouts[name], values[name])


def _check_same_tiles(
    objects: Objects,
    path: str,
    layouts: Mapping[str, ArrayLayout],
    values: Mapping[str, Array],
) -> None:
    """Raise if arrays of the grid that are sound hold other tiles: what is stored on them would not fit any more."""
    for name, layout in layouts.items():
        if array_is_sound(objects, f"{path}/{name}", layout):
            stored = read_blocks(objects, f"{path}/{name}", layout)
            # NaN is the tissue of imported tiles: not known
            if not np.array_equal(stored, values[name], equal_nan=True):
                raise SettingsConflictError(
                    f"{path} is damaged, and the same settings lead to other tiles now than when it was made "
                    f"({name} differs): give it another name, or remove {objects.url}/{path} to make it anew"
                )


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


def is_sound(objects: Objects, path: str) -> bool:
    """Tell by reading them whether a grid, its arrays and its masks are all there and undamaged."""
    try:
        attrs = group_attrs(objects, path, names.KIND_GRID)
        return (
            attrs is not None
            and all(
                array_is_sound(objects, f"{path}/{name}", grid_array(name, attrs[names.N_TILES]))
                for name in GRID_ARRAYS
            )
            and all(
                _raster_is_sound(objects, f"{path}/{names.MASKS}/{name}")
                for name in attrs[names.RASTERS]
            )
        )
    except DamagedMetadataError:
        return False


def _raster_is_sound(objects: Objects, path: str) -> bool:
    container = group_attrs(objects, path.rpartition("/")[0], names.KIND_CONTAINER)
    attrs = group_attrs(objects, path, names.MASKS)
    if container is None or attrs is None or not attrs[names.COMPLETE]:
        return False
    layouts = raster_layouts(objects, path, attrs)
    return names.MASK in layouts and all(
        array_is_sound(objects, f"{path}/{name}", layout)
        and not lost_chunks(attrs, name, len(stored_chunks(objects, f"{path}/{name}", layout)))
        for name, layout in layouts.items()
    )


def raster_layouts(objects: Objects, path: str, attrs: Mapping[str, Any]) -> dict[str, ArrayLayout]:
    """Return the layouts of a mask group's arrays: what the group says of them, and their documents must say as well.

    Raises
    ------
    DamagedMetadataError
        If a document is missing, is no JSON object, doesn't say them, or says otherwise than the group.
    """
    found = {}
    known = attrs.get(names.LAYOUTS, {})
    for name in sorted({*objects.children(path), *attrs.get(names.CHUNKS, {}), *known}):
        node = read_node(objects, f"{path}/{name}")
        if node is None:
            raise unreadable(objects.url, f"{path}/{name}", "it is missing")
        found[name] = raster_layout(objects.url, f"{path}/{name}", node, attrs)
        if name in known and not says(node, found[name].metadata()):
            raise unreadable(objects.url, f"{path}/{name}", "it isn't what its group says of it")
    return found


def raster_layout(
    url: str, path: str, node: Mapping[str, Any], attrs: Mapping[str, Any]
) -> ArrayLayout:
    """Return the layout of a mask group's array: as the group says, or its own document where the group doesn't yet."""
    known = attrs.get(names.LAYOUTS, {}).get(path.rpartition("/")[2])
    dims, shape, dtype, said = (
        ("dimension_names", "shape", "data_type", "attributes")
        if known is None
        else ("dims", "shape", "dtype", "attrs")
    )
    source = node if known is None else known
    try:
        return raster_array(
            RasterSpec(
                dims=tuple(source[dims]),
                shape=tuple(int(size) for size in source[shape]),
                dtype=np.dtype(source[dtype]).name,
                px_level0=attrs[names.PX_LEVEL0],
                attrs=dict(source[said]),
            )
        )
    except (KeyError, TypeError, ValueError) as error:
        raise altered(url, path, f"{error} is missing or garbled") from error


def read_tile_table(objects: Objects, path: str, attrs: Mapping[str, Any]) -> TileTable:
    """Read a grid's tiles.

    Raises
    ------
    IncompleteError
        If the grid isn't wholly written yet.
    DamagedBlockError
        If an object has a wrong length or checksum.
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
    except DamagedBlockError as error:
        raise DamagedBlockError(
            f"{path} is damaged, run the command that indexes the slide again ({error})"
        ) from error
    return TileTable(**columns)  # type: ignore[arg-type]  # dtypes are those of GRID_ARRAYS
