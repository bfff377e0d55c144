"""The seam between where training tiles come from and how they are prepared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dataflow.stain import StainBasis, StainSpec


@dataclass(frozen=True)
class RawTiles:
    """Some tiles of a part, as they were read.

    Attributes
    ----------
    pixels
        uint8 (tile, y, x, rgb).
    index
        int64 (tile,), their places in the part: the tile of a slide's grid, the row of a file.
    labels
        int8 (tile,): 0 is normal, 1 is tumour.
    groups
        One a tile: what must not be on both sides of a split, e.g. its patient; empty where nothing is known.
    """

    pixels: npt.NDArray[np.uint8]
    index: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int8]
    groups: Sequence[str]


class TileOrigin(Protocol):
    """Tiles of one size to learn from. Opening it checks all that can be checked without reading pixels."""

    @property
    def tile_px(self) -> int:
        """Side of a tile [px]."""
        ...

    @property
    def mpp(self) -> float | None:
        """Pixel size of the tiles [µm/px]; None where it isn't known."""
        ...

    @property
    def n_tiles(self) -> int:
        """How many tiles will be read."""
        ...

    @property
    def parts(self) -> Sequence[str]:
        """Names of the parts: slides, or files. Tiles of a part may share a stain basis."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Things to say: what was left out, and why."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return what decides which tiles these are, as JSON."""
        ...

    def basis(self, part: str, stain: StainSpec) -> StainBasis | None:
        """Return the stain basis that the tiles of a part share; None where each is fitted by itself."""
        ...

    def read(self, part: str) -> Iterator[RawTiles]:
        """Yield the tiles of a part in a fixed order, so many at a time that they fit into memory.

        Raises
        ------
        SlidestreamError
            They can't be read.
        """
        ...
