"""The seam between truths of any kind and what is judged by them: tiles, pixels, thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from jobs.evaluation.tile_labels import TileLabels
from jobs.evaluation.tile_truth import MaskFolder, TruthMask
from store_schema.specs import SlideRecord, TileTable


class Truth(Protocol):
    """What is true of slides."""

    def mask(self, record: SlideRecord) -> TruthMask | None:
        """Return where a slide is positive; None where nothing is known of it, or of its tiles only.

        Raises
        ------
        InputError
            The truth of this slide can't be read, or doesn't fit it.
        """
        ...

    def tiles(
        self, record: SlideRecord, table: TileTable, tile_level0: int, positive_from: float
    ) -> npt.NDArray[np.bool_] | None:
        """Return which tiles of a slide are positive, bool (tile,); None where nothing is known of it.

        Parameters
        ----------
        record, table
            The slide and its tiles.
        tile_level0
            Side of the square that a tile covers [px, level 0].
        positive_from
            A tile is positive if more of its area than this is.

        Raises
        ------
        InputError
            The truth of this slide can't be read, or doesn't fit it.
        """
        ...


def open_truth(path: Path) -> Truth:
    """Open what is known: a folder of masks and annotations, the file of one slide, or a table of tile labels.

    Parameters
    ----------
    path
        A folder with files named after their slides: images of any scale, GeoJSON, ASAP's XML. One such file. Or a CSV
        with the columns slide_id, x, y, label.

    Raises
    ------
    InputError
        There is nothing such, or the table makes no sense.
    """
    return TileLabels.of(path) if path.suffix.lower() == ".csv" else MaskFolder.of(path)
