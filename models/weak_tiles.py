"""Tiles of which only the classes that they hold are known, and masks that judge what is made of them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.tile_source import TileSource

UNKNOWN = 255
"""In a mask: nothing is known of that pixel."""


class WeakTiles(TileSource, Protocol):
    """Tiles with image-level labels: their own, or their slide's."""

    @property
    def labels(self) -> npt.NDArray[np.int8]:
        """int8 (tile, class): 1 where the tile holds the class, else 0; a tile may hold several, or none."""
        ...

    @property
    def slide_of(self) -> npt.NDArray[np.int32]:
        """int32 (tile,): the number of the slide that a tile is of, from 0."""
        ...


class TileMasks(Protocol):
    """The true classes of the pixels of validation tiles."""

    @property
    def fingerprint(self) -> str:
        """What tells these masks from others."""
        ...

    def read_masks(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Read masks: uint8 (n, y, x), a class's index, 255 where it isn't known.

        Of any side: maps are made of that size before they are judged.

        Parameters
        ----------
        indices
            int64 (n,), of the tiles of the ``WeakTiles`` that they belong to.
        """
        ...
