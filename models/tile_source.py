"""Where tiles come from, as training sees them: a prepared file, a test's arrays."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class TileSource(Protocol):
    """The tiles of one split, read when they are asked for."""

    def __len__(self) -> int:
        """Return how many tiles there are."""
        ...

    @property
    def fingerprint(self) -> str:
        """What tells these tiles from others: a resumed training must see the same."""
        ...

    @property
    def tile_px(self) -> int:
        """Side of a tile [px]."""
        ...

    def read(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Read tiles: uint8 (n, y, x, rgb), an array of the caller's own.

        Parameters
        ----------
        indices
            int64 (n,), in any order.
        """
        ...


class LabelledTiles(TileSource, Protocol):
    """Tiles that are known to be normal or not."""

    @property
    def labels(self) -> npt.NDArray[np.int8]:
        """int8 (tile,): 1 is tumour, 0 is not."""
        ...
