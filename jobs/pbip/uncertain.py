"""Tiles that a segmentation is least sure of, in order; and the regions of the lattice that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import shapely
from scipy import ndimage

from dataflow.heat_colours import rank_percentile
from jobs.export.tile_columns import TileColumns
from store_schema.errors import InputError

ENTROPY: Final = "entropy"
DISAGREEMENT: Final = "disagreement"

By: TypeAlias = Literal["both", "entropy", "disagreement"]
"""What makes a tile uncertain: ``both`` is the mean of its percentiles among all tiles, in entropy and disagreement."""

_EIGHT: Final = np.ones((3, 3), bool)


@dataclass(frozen=True)
class UncertainTile:
    """One tile.

    Attributes
    ----------
    rank
        1 is the least sure.
    columns
        The slide's tiles, with all numbers.
    tile
        Position in the grid.
    uncertainty
        What it was ranked by: a percentile, or nats.
    region
        Number of its region, see :class:`UncertainRegion`.
    """

    rank: int
    columns: TileColumns
    tile: int
    uncertainty: float
    region: int = 0

    @property
    def slide_id(self) -> str:
        """The slide."""
        return self.columns.slide.slide_id

    @property
    def corner(self) -> tuple[int, int]:
        """Top-left corner (x, y) [px, level 0]."""
        table = self.columns.table
        return int(table.x[self.tile]), int(table.y[self.tile])

    def numbers(self) -> dict[str, float]:
        """Return all that the segmentation measured of it, exactly as stored."""
        measured = self.columns.measurements
        return {name: float(str(values[self.tile])) for name, values in measured.items()}


@dataclass(frozen=True)
class UncertainRegion:
    """Uncertain tiles of a slide that are neighbours on the lattice, at edges or corners.

    Attributes
    ----------
    number
        1 has the greatest mean uncertainty.
    tiles
        In the order of their ranks.
    shape
        What they cover [px, level 0].
    """

    number: int
    tiles: tuple[UncertainTile, ...]
    shape: shapely.Polygon | shapely.MultiPolygon

    @property
    def uncertainty(self) -> float:
        """Mean of its tiles."""
        return float(np.mean([tile.uncertainty for tile in self.tiles]))


def uncertain_tiles(
    slides: Sequence[TileColumns], by: By, top: int, per_slide: int | None = None
) -> list[UncertainTile]:
    """Return the tiles that are least sure, the least sure first; regions aren't set yet.

    Parameters
    ----------
    slides
        All tiles that are ranked together.
    by
        What they are ranked by; equal ones come in the order of slides and tiles.
    top, per_slide
        How many at the most, of all slides and of each.

    Raises
    ------
    InputError
        The scores are not of a segmentation.
    """
    for columns in slides:
        for name in (ENTROPY, DISAGREEMENT):
            if name not in columns.numbers:
                raise InputError(
                    f"scores {columns.run} of slide {columns.slide.slide_id} have no {name}: name those of "
                    "`slidestream pbip segment`"
                )
    slide_of = np.repeat(np.arange(len(slides)), [len(columns.table) for columns in slides])
    tile_of = np.concatenate([np.arange(len(columns.table)) for columns in slides])
    values = _uncertainty(slides, by)
    order = np.lexsort((tile_of, slide_of, -values))
    taken = np.zeros(len(slides), np.intp)
    found: list[UncertainTile] = []
    for i in order[np.isfinite(values[order])].tolist():
        slide = int(slide_of[i])
        if len(found) == top:
            break
        if per_slide is None or taken[slide] < per_slide:
            taken[slide] += 1
            rank = len(found) + 1
            found.append(UncertainTile(rank, slides[slide], int(tile_of[i]), float(values[i])))
    return found


def _uncertainty(slides: Sequence[TileColumns], by: By) -> npt.NDArray[np.float64]:
    parts = [
        np.concatenate([columns.numbers[name] for columns in slides]).astype(np.float64)
        for name in ((ENTROPY, DISAGREEMENT) if by == "both" else (by,))
    ]
    if by != "both":
        return parts[0]
    known = np.isfinite(parts).all(axis=0)
    values = np.full(known.shape, np.nan)
    values[known] = np.mean([rank_percentile(part[known]) for part in parts], axis=0)
    return values


def uncertain_regions(tiles: Sequence[UncertainTile]) -> list[UncertainRegion]:
    """Return the regions that tiles make, those of the greatest mean uncertainty first; each tile is in one."""
    pieces: list[list[UncertainTile]] = []
    for slide_id in dict.fromkeys(tile.slide_id for tile in tiles):
        members = [tile for tile in tiles if tile.slide_id == slide_id]
        table, at = members[0].columns.table, [tile.tile for tile in members]
        rows, columns = table.row[at], table.col[at]
        lattice = np.zeros((int(rows.max()) + 1, int(columns.max()) + 1), bool)
        lattice[rows, columns] = True
        labels, n = ndimage.label(lattice, structure=_EIGHT)
        of_tile = labels[rows, columns].tolist()
        pieces += [
            [tile for tile, label in zip(members, of_tile, strict=True) if label == wanted]
            for wanted in range(1, n + 1)
        ]
    pieces.sort(key=lambda piece: (-float(np.mean([t.uncertainty for t in piece])), piece[0].rank))
    return [
        UncertainRegion(number, tuple(piece), _covered(piece))
        for number, piece in enumerate(pieces, start=1)
    ]


def _covered(tiles: Sequence[UncertainTile]) -> shapely.Polygon | shapely.MultiPolygon:
    side = tiles[0].columns.tile_level0
    corners = np.array([tile.corner for tile in tiles], np.float64)
    squares = shapely.box(corners[:, 0], corners[:, 1], corners[:, 0] + side, corners[:, 1] + side)
    whole = shapely.union_all(squares)
    assert isinstance(whole, shapely.Polygon | shapely.MultiPolygon)
    return whole
