"""How fine the maps are that a tile model makes of every tile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from store_schema import names
from store_schema.specs import ArraySpec, GridSpec


def tile_maps(outputs: Mapping[str, ArraySpec], grid: GridSpec | None) -> dict[str, dict[str, Any]]:
    """Return of each output that is a map its side [px] and the size of its pixels [µm], for metrics.

    Parameters
    ----------
    outputs
        What the model makes.
    grid
        Of the tiles; the size isn't known without it, or without its mpp.
    """
    um = None if grid is None or grid.mpp is None else grid.tile_px * grid.mpp
    return {
        name: {"side_px": spec.shape[-1], "px_um": None if um is None else um / spec.shape[-1]}
        for name, spec in outputs.items()
        if names.MAP_X in spec.dims
    }


def map_line(name: str, of: Mapping[str, Any]) -> str:
    """Write one of them as people read it."""
    size = "" if of["px_um"] is None else f", {of['px_um']:.3g} µm each"
    return f"{name}: {of['side_px']} x {of['side_px']} values a tile{size}"
