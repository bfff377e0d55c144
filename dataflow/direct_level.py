"""A level that is decoded without OpenSlide: as tiles, and compared with OpenSlide before it is trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dataflow.jpeg_tiles import JpegTiles, TileDamagedError, UnusualTileError
from dataflow.reader_openslide import OpenSlideReader
from store_schema.errors import ReadFailedError

_TILES_PER_CHECK: Final = 32  # one more is compared for so many, up to four
_MAX_CHECKED: Final = 4


@dataclass(frozen=True)
class DirectLevel:
    """One level of a slide, a :class:`dataflow.shared_tiles.TileSource`.

    Attributes
    ----------
    slide
        OpenSlide's reader of the slide: what the file holds no tile for, it reads.
    level
        Index into its ``info.levels``.
    tiles
        The level's tiles.
    """

    slide: OpenSlideReader
    level: int
    tiles: JpegTiles

    @property
    def width_px(self) -> int:
        """Width of the level [px]."""
        return self.tiles.lattice.width_px

    @property
    def height_px(self) -> int:
        """Height of the level [px]."""
        return self.tiles.lattice.height_px

    @property
    def tile_width_px(self) -> int:
        """Width of a tile [px]."""
        return self.tiles.lattice.tile_width_px

    @property
    def tile_height_px(self) -> int:
        """Height of a tile [px]."""
        return self.tiles.lattice.tile_height_px

    def decode(self, tile: int, out: npt.NDArray[np.uint8]) -> None:
        """Fill ``out``, uint8 (tile height, tile width, 3), C-contiguous; see :meth:`JpegTiles.decode`.

        Raises
        ------
        ReadFailedError
            The tile is damaged, or the reader closed.
        """
        self.slide.check_open()
        if self.tiles.missing(tile):
            out[:] = self.slide.read_level(self.level, *self._corner(tile), *out.shape[1::-1])
            return
        try:
            self.tiles.decode(tile, out)
        except TileDamagedError as error:
            x, y = self._corner(tile)
            downsample = self.slide.info.levels[self.level].downsample
            raise ReadFailedError(
                f"{self.slide.info.path}: pixels at x={round(x * downsample)}, y={round(y * downsample)} "
                f"(level {self.level}) can't be decoded: the JPEG of tile {tile} is damaged ({error}); "
                "copy the file again, or leave the slide out"
            ) from error

    def compare(self) -> Comparison:
        """Compare a few tiles with what OpenSlide makes of them, bit for bit: first, middle, last, and any.

        OpenSlide interpolates where its corner (whole in level 0) is no whole pixel of the level; there only the
        level's first tile can be compared.
        """
        lattice = self.tiles.lattice
        there = np.flatnonzero(lattice.counts)
        downsample = self.slide.openslide_downsample(self.level)
        if len(there) == 0:
            return Comparison()
        if downsample == round(downsample):
            anywhere = int(np.random.default_rng(len(there)).integers(len(there)))
            order = [len(there) // 2, len(there) - 1, anywhere, 0]
            picked = order[: min(_MAX_CHECKED, -(-len(there) // _TILES_PER_CHECK))]
        else:
            picked = [0]
            if there[0] != 0:
                return Comparison()
        outcomes = [self._compare_tile(int(there[i])) for i in dict.fromkeys(picked)]
        return Comparison(
            n_equal=sum(outcome.n_equal for outcome in outcomes),
            differing=any(outcome.differing for outcome in outcomes),
            unusual=next((each.unusual for each in outcomes if each.unusual), ""),
            damaged=next((each.damaged for each in outcomes if each.damaged), ""),
        )

    def _compare_tile(self, tile: int) -> Comparison:
        x, y = self._corner(tile)
        width = min(self.tile_width_px, self.width_px - x)
        height = min(self.tile_height_px, self.height_px - y)
        pixels = np.empty((self.tile_height_px, self.tile_width_px, 3), np.uint8)
        try:
            self.tiles.decode(tile, pixels)
        except UnusualTileError as error:
            return Comparison(unusual=str(error))
        except TileDamagedError as error:
            return Comparison(damaged=str(error))
        try:
            expected = self.slide.read_level(self.level, x, y, width, height)
        except ReadFailedError as error:
            return Comparison(damaged=str(error))
        is_equal = np.array_equal(pixels[:height, :width], expected)
        return Comparison(n_equal=int(is_equal), differing=not is_equal)

    def _corner(self, tile: int) -> tuple[int, int]:
        """Return x, y of a tile's top-left corner [px of the level]."""
        row, column = divmod(tile, self.tiles.lattice.columns)
        return column * self.tile_width_px, row * self.tile_height_px


@dataclass(frozen=True)
class Comparison:
    """What came of comparing tiles with OpenSlide.

    Attributes
    ----------
    n_equal
        Tiles that were equal, bit for bit.
    differing
        Some were not.
    unusual, damaged
        What was wrong with one that could not be decoded, or an empty string.
    """

    n_equal: int = 0
    differing: bool = False
    unusual: str = ""
    damaged: str = ""
