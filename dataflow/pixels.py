"""Tiles read straight from a slide's file: what serves a store's lazy ``pixels()``."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataflow.slide import SlideReader, open_slide
from dataflow.slide_digest import slide_digest
from dataflow.tile_reader import TilePlan, TileReader
from store_schema.errors import SlideChangedError, UnreadableSlideError

_OPEN_SLIDES = 8


def read_tiles(
    source: str,
    x: npt.NDArray[np.int32],
    y: npt.NDArray[np.int32],
    *,
    tile_px: int,
    tile_level0: int,
    mpp: float,
    slide_mpp: float,
    fingerprint: str,
) -> npt.NDArray[np.uint8]:
    """Read tiles of a slide.

    Parameters
    ----------
    source
        The slide's file, as the store recorded it.
    x, y
        int32 (n,), top-left corners [px, level 0].
    tile_px
        Side of a tile [px].
    tile_level0
        Side of the square that a tile covers [px, level 0].
    mpp
        Pixel size of the tiles [µm/px]; said by the grid, follows from the two sides.
    slide_mpp
        Pixel size of level 0 [µm/px], as it was when the grid was made.
    fingerprint
        :func:`dataflow.slide_digest.slide_digest` of the slide that the grid was made on.

    Returns
    -------
    array
        uint8 (n, tile_px, tile_px, 3).

    Raises
    ------
    UnreadableSlideError
        The file has gone, or isn't readable any more.
    SlideChangedError
        The file holds another slide than the grid was made on.
    ReadFailedError
        A tile can't be decoded.
    """
    del mpp  # part of the plug's signature; reading needs no physical size
    reader = _reader(source, _modified_ns(source), slide_mpp, fingerprint)
    plan = TilePlan.for_square(reader.info, tile_level0, tile_px)
    out = np.empty((len(x), tile_px, tile_px, 3), np.uint8)
    TileReader(reader, plan, x, y).read(0, len(x), out)
    return out


@lru_cache(maxsize=_OPEN_SLIDES)  # what falls out is closed with its last reference
def _reader(source: str, _modified_ns: int, slide_mpp: float, fingerprint: str) -> SlideReader:
    reader = open_slide(source, slide_mpp)
    if slide_digest(source) != fingerprint:  # once an opened slide: at most 6 MiB are read
        reader.close()
        raise SlideChangedError(
            f"{source}: the file is not the slide that the tiles were laid on; bring that one back, or index "
            "this one under another slide id"
        )
    return reader


def _modified_ns(source: str) -> int:
    try:
        return Path(source).stat().st_mtime_ns
    except OSError as error:
        raise UnreadableSlideError(
            f"{source}: the slide that the tiles came from is not there ({error.strerror}); "
            "bring it back to read pixels"
        ) from error
