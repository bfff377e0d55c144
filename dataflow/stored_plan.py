"""How the tiles of a grid that is in a store are read from its slide."""

from __future__ import annotations

from dataflow.slide import SlideInfo
from dataflow.tile_reader import TilePlan
from store_schema import names
from store_schema.slide_view import SlideView
from store_schema.specs import GridGeometry, GridSpec


def stored_plan(info: SlideInfo, slide: SlideView, grid_name: str) -> TilePlan:
    """Plan the reading of a stored grid.

    Parameters
    ----------
    info
        The opened slide.
    slide
        The same slide in the store.
    grid_name
        One of its grids.
    """
    attrs = slide.grid_attrs(grid_name)
    geometry = GridGeometry(**attrs[names.GEOMETRY])
    return TilePlan.of(info, geometry, GridSpec(**attrs[names.SPEC]).tile_px)
