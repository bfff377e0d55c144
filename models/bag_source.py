"""Where bags come from, as training and scoring see it: a store, a table, a test's arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class BagSource(Protocol):
    """Bags of one split, read when they are loaded. Picklable."""

    @property
    def ids(self) -> Sequence[str]:
        """Slide (or patient) of each bag, unique."""
        ...

    @property
    def targets(self) -> npt.NDArray[np.int64] | npt.NDArray[np.float32]:
        """int64 (bag,) class indices, or float32 (bag, class) of a multi-label task."""
        ...

    @property
    def groups(self) -> Sequence[str]:
        """Patient of each bag: what splits and bootstraps keep together."""
        ...

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64 (bag,) number of tiles, all ≥ 1."""
        ...

    @property
    def n_features(self) -> int:
        """Width of a tile's features."""
        ...

    def load(
        self, index: int, tiles: npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.floating]:
        """Read a bag: float16 or float32 (tile, feature).

        Parameters
        ----------
        index
            Number of the bag.
        tiles
            int64 (k,), ascending positions within the bag of the tiles to return; None takes all.
        """
        ...
