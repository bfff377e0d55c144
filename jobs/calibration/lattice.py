"""Where a slide's lattice of tiles lies: what a mask with one pixel a tile covers."""

from __future__ import annotations

from dataclasses import dataclass

from store_schema import names
from store_schema.slide_view import SlideView


@dataclass(frozen=True)
class LatticePlace:
    """A raster with one pixel for each place of a grid's lattice.

    Attributes
    ----------
    shape
        Rows and columns.
    px_level0
        Side of its pixels [px, level 0]: the grid's stride.
    origin_level0
        (x, y) of its corner [px, level 0]. Where tiles overlap, pixels are smaller than tiles and lie on their middles.
    """

    shape: tuple[int, int]
    px_level0: float
    origin_level0: tuple[float, float]

    @classmethod
    def of(cls, slide: SlideView, grid: str) -> LatticePlace:
        """Return that of a grid; NotInStoreError if there is none."""
        geometry = slide.grid_attrs(grid)[names.GEOMETRY]
        stride = float(geometry["stride_level0"])
        overlap = float(geometry["tile_level0"]) - stride
        middle = (
            overlap / 2 if overlap >= 1 else 0.0
        )  # less is the rounding of tiles to whole pixels
        return cls((int(geometry["n_rows"]), int(geometry["n_cols"])), stride, (middle, middle))
