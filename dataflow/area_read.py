"""Reading any square of a slide at any coarser pixel size, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataflow.resample import Box, area_resample
from dataflow.slide import SlideReader

_READ_BLOCK_PX = 2048  # side of a decoded block: 17 MB as RGBA, 50 MB as float32 RGB
_ROUNDING_PX = 1e-6  # float error of a bound that is meant to be whole


def read_area(reader: SlideReader, level: int, box: Box, out: npt.NDArray[np.uint8]) -> None:
    """Read a box of a level, area-resampled, into ``out``.

    Parameters
    ----------
    reader
        Where pixels come from.
    level
        Level to read, as fine as the result or finer.
    box
        What the result covers [px of the level].
    out
        uint8 (y, x, 3), filled in place; outside the slide is white.

    Raises
    ------
    ReadFailedError
        A part of the box can't be decoded.
    """
    for part in area_parts(box, out.shape[1], out.shape[0]):
        part.resample(reader.read_level(level, *part.level_box), out)


@dataclass(frozen=True)
class AreaPart:
    """A part of a box that is read and resampled at once.

    Attributes
    ----------
    level_box
        x, y, width, height [px of the level], whole: what must be read.
    covered
        What the part covers [px of what was read].
    left, top, right, bottom
        Where it goes [px of the result].
    """

    level_box: tuple[int, int, int, int]
    covered: Box
    left: int
    top: int
    right: int
    bottom: int

    def resample(self, pixels: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8]) -> None:
        """Resample what was read, uint8 (y, x, 3), into its place in ``out``."""
        width_px, height_px = self.right - self.left, self.bottom - self.top
        out[self.top : self.bottom, self.left : self.right] = area_resample(
            pixels, self.covered, width_px, height_px
        )


def area_parts(box: Box, columns: int, rows: int) -> Iterator[AreaPart]:
    """Divide a box into parts of bounded size.

    Parameters
    ----------
    box
        What the result covers [px of the level].
    columns, rows
        Size of the result [px].

    Yields
    ------
    AreaPart
        Row by row; as many for every box of the same size.
    """
    px_x, px_y = box.width / columns, box.height / rows
    step_x, step_y = (max(1, int(_READ_BLOCK_PX / px)) for px in (px_x, px_y))
    for top in range(0, rows, step_y):
        bottom = min(top + step_y, rows)
        for left in range(0, columns, step_x):
            right = min(left + step_x, columns)
            x, first_x, n_x = _whole_px(box.x + left * px_x, box.x + right * px_x)
            y, first_y, n_y = _whole_px(box.y + top * px_y, box.y + bottom * px_y)
            covered = Box(x - first_x, y - first_y, (right - left) * px_x, (bottom - top) * px_y)
            yield AreaPart((first_x, first_y, n_x, n_y), covered, left, top, right, bottom)


def read_thumbnail(reader: SlideReader, px_level0: float) -> npt.NDArray[np.uint8]:
    """Read a whole slide at a coarse pixel size.

    Parameters
    ----------
    reader
        Where pixels come from; the nearest finer level is read, in blocks.
    px_level0
        Side of a pixel of the thumbnail [px, level 0], at least 1. Pixel (row i, column j) covers
        the level-0 square that begins at x = j * px_level0, y = i * px_level0.

    Returns
    -------
    array
        uint8 (ceil(height / px_level0), ceil(width / px_level0), 3). The part of the last row
        and column that lies beyond the slide is white.

    Raises
    ------
    ReadFailedError
        A part of the slide can't be decoded.
    """
    if px_level0 < 1:
        raise ValueError(f"a thumbnail is no finer than level 0: px_level0 >= 1, not {px_level0}")
    info = reader.info
    level = info.finer_level(px_level0)
    rows = math.ceil(info.height / px_level0 - _ROUNDING_PX)
    columns = math.ceil(info.width / px_level0 - _ROUNDING_PX)
    out = np.empty((max(rows, 1), max(columns, 1), 3), np.uint8)
    px = px_level0 / info.levels[level].downsample
    read_area(reader, level, Box(0.0, 0.0, out.shape[1] * px, out.shape[0] * px), out)
    return out


def _whole_px(low: float, high: float) -> tuple[float, int, int]:
    """Return the interval's low bound, the first whole pixel that it touches, and how many."""
    if abs(low - round(low)) < _ROUNDING_PX:
        low = float(round(low))  # 2.9999999 must not fetch pixel 2
    first = math.floor(low)
    return low, first, max(1, math.ceil(high - _ROUNDING_PX) - first)
