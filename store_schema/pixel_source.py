"""The plug by which a slide reader serves ``ds.tiles.pixels()``: an entry point, since the store knows no reader."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from store_schema.errors import InputError

GROUP = "slidestream.pixel_source"
DEFAULT = "openslide"


class PixelSource(Protocol):
    """Reads tiles of a slide; a module-level function, so that it can be sent to workers."""

    def __call__(
        self,
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
        """Return uint8 (n, tile_px, tile_px, rgb).

        Parameters
        ----------
        source
            The slide's file.
        x, y
            int32 (n,), top-left corners [px, level 0].
        tile_px
            Side of a tile [px].
        tile_level0
            Side of the square that a tile covers [px, level 0].
        mpp, slide_mpp
            Pixel size of the tiles, and of level 0 [µm/px].
        fingerprint
            Of the content of the slide that the tiles were laid on.

        Raises
        ------
        SlideChangedError
            The file holds another slide by now.
        """
        ...


def load_pixel_source(name: str = DEFAULT) -> PixelSource:
    """Return an installed pixel source.

    Parameters
    ----------
    name
        Name of the entry point in the group ``slidestream.pixel_source``.

    Raises
    ------
    InputError
        If none of that name is installed.
    """
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise InputError(
            f"no pixel source {name!r} is installed: install slidestream with its slide readers"
        )
    return cast(PixelSource, next(iter(found)).load())
