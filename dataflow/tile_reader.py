"""Tiles by their level-0 corner, at the requested pixel size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataflow.area_read import read_area
from dataflow.resample import Box
from dataflow.slide import SlideInfo, SlideReader
from store_schema.specs import GridGeometry

_EXACT_LEVEL0_PX = 0.5  # corners are rounded to level-0 pixels: a smaller shift means nothing
_MAX_REDUCED_PX = 4096  # side of a box that is decoded at once: 67 MB as RGBA


@dataclass(frozen=True)
class TilePlan:
    """How the tiles of a grid are read from one slide: three frames, each named.

    Attributes
    ----------
    tile_px
        Side of a tile as it is handed on [px].
    tile_level0
        Side of the square that it covers [px, level 0].
    level
        The level that is read: the nearest finer one.
    level_downsample
        Side of a pixel of that level [px, level 0].
    """

    tile_px: int
    tile_level0: int
    level: int
    level_downsample: float

    @classmethod
    def of(cls, info: SlideInfo, geometry: GridGeometry, tile_px: int) -> TilePlan:
        """Plan for a grid.

        Parameters
        ----------
        info
            The slide.
        geometry
            The grid on that slide.
        tile_px
            Side of a tile [px at the grid's mpp].
        """
        return cls.for_square(info, geometry.tile_level0, tile_px)

    @classmethod
    def for_square(cls, info: SlideInfo, tile_level0: int, tile_px: int) -> TilePlan:
        """Plan for tiles of ``tile_px`` pixels that cover ``tile_level0`` px of level 0."""
        level = info.finer_level(tile_level0 / tile_px)
        return cls(tile_px, tile_level0, level, info.levels[level].downsample)

    @property
    def tile_level_px(self) -> float:
        """Side of the covered square [px of the level that is read, fractional]."""
        return self.tile_level0 / self.level_downsample

    @property
    def whole_factor(self) -> int | None:
        """Pixels of the level per pixel of the tile along a side, when that is a power of two.

        Only for those is Pillow's integer reduction rounded to the nearest.
        """
        factor = round(self.tile_level_px / self.tile_px)
        excess_level0 = abs(factor * self.tile_px - self.tile_level_px) * self.level_downsample
        whole = factor >= 1 and factor & (factor - 1) == 0 and excess_level0 < _EXACT_LEVEL0_PX
        return factor if whole else None


@dataclass(frozen=True)
class TileReader:
    """Reads tiles of one slide by one plan; may be used from several threads at once.

    Where the tile's pixels are those of the level, they are copied; where each is the mean of a
    whole number of them, they are averaged (powers of two); otherwise they are area-resampled from the fractional
    box. Beyond the border of the slide tiles are white.
    """

    reader: SlideReader
    plan: TilePlan

    def read(
        self, x: npt.NDArray[np.int32], y: npt.NDArray[np.int32], out: npt.NDArray[np.uint8]
    ) -> None:
        """Read a batch of tiles into ``out``.

        Parameters
        ----------
        x, y
            int32 (n,), top-left corners [px, level 0]; neighbours in the batch should be
            neighbours in the slide, so that decoded blocks are shared.
        out
            uint8 (n, tile_px, tile_px, 3), filled in place.

        Raises
        ------
        ReadFailedError
            A tile can't be decoded; ``out`` is then undefined from that tile on.
        """
        for i in range(x.shape[0]):
            self._read_tile(int(x[i]), int(y[i]), out[i])

    def _read_tile(self, x_level0: int, y_level0: int, out: npt.NDArray[np.uint8]) -> None:
        plan = self.plan
        x, y = x_level0 / plan.level_downsample, y_level0 / plan.level_downsample
        shift_level0 = max(abs(x - round(x)), abs(y - round(y))) * plan.level_downsample
        factor = plan.whole_factor
        if (
            factor is None
            or shift_level0 >= _EXACT_LEVEL0_PX
            or (factor > 1 and factor * plan.tile_px > _MAX_REDUCED_PX)
        ):
            side = plan.tile_level_px
            read_area(self.reader, plan.level, Box(x, y, side, side), out)
            return
        side_px = factor * plan.tile_px
        pixels = self.reader.read_level(plan.level, round(x), round(y), side_px, side_px)
        out[:] = pixels if factor == 1 else np.asarray(Image.fromarray(pixels).reduce(factor))
