"""Tiles by their level-0 corner, at the requested pixel size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from dataflow.area_read import area_parts
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


class TileReader:
    """Reads the tiles of one block of a slide; may be used from several threads at once.

    Where the tile's pixels are those of the level, they are copied; where each is the mean of a
    whole number of them, they are averaged (powers of two); otherwise they are area-resampled from
    the fractional box. Beyond the border of the slide tiles are white. What several tiles have in
    common is decoded once, where the reader can.

    Parameters
    ----------
    reader
        The slide.
    plan
        How tiles are read.
    x, y
        Integer (n,), top-left corners of all tiles [px, level 0]; neighbours in the block should
        be neighbours in the slide, so that little must be kept for later tiles.
    """

    def __init__(
        self,
        reader: SlideReader,
        plan: TilePlan,
        x: npt.NDArray[np.integer],
        y: npt.NDArray[np.integer],
    ) -> None:
        self._plan = plan
        corner = (
            np.stack([x, y], axis=1) / plan.level_downsample
        )  # float64 (n, 2) [px of the level]
        shift_level0 = np.abs(corner - np.rint(corner)).max(axis=1) * plan.level_downsample
        factor = plan.whole_factor
        if factor is None or (factor > 1 and factor * plan.tile_px > _MAX_REDUCED_PX):
            exact = np.zeros(len(corner), bool)
        else:
            exact = shift_level0 < _EXACT_LEVEL0_PX
        self._factor = factor or 1
        side = plan.tile_level_px
        self._parts = {
            int(i): list(
                area_parts(
                    Box(float(corner[i, 0]), float(corner[i, 1]), side, side),
                    plan.tile_px,
                    plan.tile_px,
                )
            )
            for i in np.flatnonzero(~exact)
        }
        self._first_box = np.zeros(len(corner) + 1, np.int64)  # a tile's boxes follow each other
        n_boxes = np.ones(len(corner), np.int64)
        n_boxes[~exact] = [len(parts) for parts in self._parts.values()]
        np.cumsum(n_boxes, out=self._first_box[1:])
        boxes = np.empty((int(self._first_box[-1]), 4), np.int64)
        first = self._first_box[:-1]
        boxes[first[exact], :2] = np.rint(corner[exact])
        boxes[first[exact], 2:] = self._factor * plan.tile_px
        for i, parts in self._parts.items():
            boxes[first[i] : first[i] + len(parts)] = [part.level_box for part in parts]
        self._boxes = reader.shared(plan.level, boxes)

    def read(self, start: int, stop: int, out: npt.NDArray[np.uint8]) -> None:
        """Read the tiles from ``start`` to before ``stop``.

        Parameters
        ----------
        start, stop
            Which tiles of the block. What tiles share is decoded once as long as each is read once.
        out
            uint8 (stop - start, tile_px, tile_px, 3), filled in place.

        Raises
        ------
        ReadFailedError
            A tile can't be decoded; ``out`` is then undefined from that tile on.
        """
        for i in range(start, stop):
            self._read_tile(i, out[i - start])

    def _read_tile(self, i: int, out: npt.NDArray[np.uint8]) -> None:
        box = int(self._first_box[i])
        if i in self._parts:
            for k, part in enumerate(self._parts[i]):
                pixels = np.empty((part.level_box[3], part.level_box[2], 3), np.uint8)
                self._boxes.read(box + k, pixels)
                part.resample(pixels, out)
        elif self._factor == 1:
            self._boxes.read(box, out)
        else:
            side_px = self._factor * self._plan.tile_px
            pixels = np.empty((side_px, side_px, 3), np.uint8)
            self._boxes.read(box, pixels)
            _reduce(pixels, self._factor, out)


def _reduce(pixels: npt.NDArray[np.uint8], factor: int, out: npt.NDArray[np.uint8]) -> None:
    """Average squares of a power of two of pixels a side, rounded half up."""
    if factor == 2 and out.flags.c_contiguous:
        from dataflow.resample_cpu import halved  # imports numba, and may have to compile

        halved(pixels, out)
    else:
        out[:] = np.asarray(Image.fromarray(pixels).reduce(factor))
