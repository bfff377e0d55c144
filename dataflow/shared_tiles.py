"""Boxes of a level cut out of its tiles, each tile decoded once."""

from __future__ import annotations

import threading
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from store_schema.errors import ReadFailedError

Pixels = npt.NDArray[np.uint8]

_MAX_HELD_BYTES: Final = 128 << 20


class TileSource(Protocol):
    """A level as a lattice of tiles of one size, row by row."""

    @property
    def width_px(self) -> int:
        """Width of the level [px]."""
        ...

    @property
    def height_px(self) -> int:
        """Height of the level [px]."""
        ...

    @property
    def tile_width_px(self) -> int:
        """Width of a tile [px]; tiles of the last column reach beyond the level."""
        ...

    @property
    def tile_height_px(self) -> int:
        """Height of a tile [px]."""
        ...

    def decode(self, tile: int, out: Pixels) -> None:
        """Fill ``out``, uint8 (tile height, tile width, 3); ReadFailedError when that fails."""
        ...


class _Held:
    """A tile that one thread decodes and others wait for, by its lock."""

    __slots__ = ("error", "lock", "pixels", "users")

    def __init__(self, users: int) -> None:
        self.users = users  # that have not copied it yet
        self.lock = threading.Lock()
        self.pixels: Pixels | None = None
        self.error: str | None = None


class SharedTiles:
    """The :class:`dataflow.slide.SharedBoxes` of a level of tiles.

    How many boxes need each tile is counted beforehand: a tile is decoded for the first of them and kept until the
    last. A box that is exactly one tile, and its only user, is decoded where it is wanted.

    Parameters
    ----------
    source
        The level.
    boxes
        int64 (n, 4): x, y, width, height [px of the level].

    Notes
    -----
    The floor: each tile's bytes are read once and decoded once. That holds as long as the tiles that wait for their
    other boxes fit 128 MiB (680 tiles of 256 px; a block of 1,024 boxes in Hilbert order keeps some 100); beyond that
    the oldest is let go and decoded again. The counts take 4 bytes a tile of the boxes' common bounding box.
    """

    def __init__(self, source: TileSource, boxes: npt.NDArray[np.int64]) -> None:
        self._source = source
        size = np.array([source.width_px, source.height_px])
        tile = np.array([source.tile_width_px, source.tile_height_px])
        low, high = (
            np.clip(corner, 0, size) for corner in (boxes[:, :2], boxes[:, :2] + boxes[:, 2:])
        )
        first, stop = low // tile, -(-high // tile)  # columns and rows of tiles that a box touches
        first[(low >= high).any(axis=1)] = stop[(low >= high).any(axis=1)] = 0
        inside = (stop > first).all(axis=1)
        self._origin = first[inside].min(axis=0) if inside.any() else np.zeros(2, np.int64)
        self._left = _users(first[inside] - self._origin, stop[inside] - self._origin)
        exact = inside & (boxes[:, :2] == first * tile).all(axis=1)
        exact &= (high - low == tile).all(axis=1) & (boxes[:, 2:] == tile).all(axis=1)
        place = first[exact] - self._origin
        exact[exact] = self._left[place[:, 1], place[:, 0]] == 1
        self._columns = -(-source.width_px // source.tile_width_px)
        number = first[:, 1] * self._columns + first[:, 0]
        # lists: an element of an array takes longer to fetch than to use
        self._whole_tile: list[int] = np.where(exact, number, -1).tolist()
        self._boxes: list[list[int]] = np.concatenate([boxes, first, stop], axis=1).tolist()
        self._held: dict[int, _Held] = {}
        self._free: list[Pixels] = []
        self._max_held = max(1, _MAX_HELD_BYTES // (3 * int(tile.prod())))
        self._lock = threading.Lock()

    def read(self, i: int, out: Pixels) -> None:
        """Read a box; see :meth:`dataflow.slide.SharedBoxes.read`."""
        if self._whole_tile[i] >= 0 and out.flags.c_contiguous:
            self._source.decode(self._whole_tile[i], out)
            return
        source = self._source
        x, y, width, height, first_column, first_row, stop_column, stop_row = self._boxes[i]
        if x < 0 or y < 0 or x + width > source.width_px or y + height > source.height_px:
            out[:] = 255
        for row in range(first_row, stop_row):
            tile_y = row * source.tile_height_px
            top = max(y, tile_y)
            bottom = min(y + height, tile_y + source.tile_height_px, source.height_px)
            for column in range(first_column, stop_column):
                tile_x = column * source.tile_width_px
                left = max(x, tile_x)
                right = min(x + width, tile_x + source.tile_width_px, source.width_px)
                held, pixels = self._take(column, row)
                out[top - y : bottom - y, left - x : right - x] = pixels[
                    top - tile_y : bottom - tile_y, left - tile_x : right - tile_x
                ]
                self._give(held, pixels)

    def _take(self, column: int, row: int) -> tuple[_Held, Pixels]:
        """Return a tile for one of its users, decoded here or by another thread. No lock is held while decoding."""
        tile = row * self._columns + column
        place = (row - int(self._origin[1]), column - int(self._origin[0]))
        with self._lock:
            held = self._held.get(tile)
            is_mine = held is None
            if held is None:
                held = _Held(max(1, int(self._left[place])))
                held.lock.acquire()  # until decoded; nobody waits for anything while holding it
            self._left[place] -= 1
            if self._left[place] <= 0:
                self._held.pop(tile, None)
            elif is_mine:
                self._held[tile] = held
                if len(self._held) > self._max_held:
                    del self._held[next(iter(self._held))]
        if is_mine:
            self._decode(tile, held)
        else:
            with held.lock:
                pass
        if held.pixels is None:
            raise ReadFailedError(held.error or "a tile could not be decoded by another thread")
        return held, held.pixels

    def _give(self, held: _Held, pixels: Pixels) -> None:
        """Take back a tile that one user has copied; after the last its memory serves another."""
        with self._lock:
            held.users -= 1
            if held.users == 0:
                self._free.append(pixels)

    def _decode(self, tile: int, held: _Held) -> None:
        source = self._source
        try:
            pixels = self._free.pop()  # memory fresh from the system costs a fifth of a decode
        except IndexError:
            pixels = np.empty((source.tile_height_px, source.tile_width_px, 3), np.uint8)
        try:
            source.decode(tile, pixels)
            held.pixels = pixels
        except ReadFailedError as error:
            held.error = str(error)
        finally:
            held.lock.release()


def _users(first: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Count how many ranges (n, 2: column, row) hold each tile: int32 (row, column).

    Steps at the corners of the ranges, summed up along both axes.
    """
    columns, rows = stop.max(axis=0, initial=0).tolist()
    steps = np.zeros((rows + 1, columns + 1), np.int32)
    for x, y, step in ((first, first, 1), (stop, first, -1), (first, stop, -1), (stop, stop, 1)):
        np.add.at(steps, (y[:, 1], x[:, 0]), step)
    users: npt.NDArray[np.int32] = steps.cumsum(axis=0, dtype=np.int32).cumsum(
        axis=1, dtype=np.int32
    )
    return users
