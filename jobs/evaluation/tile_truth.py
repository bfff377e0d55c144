"""What is true of tiles, from masks of whole slides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dataflow.mask_files import read_mask_file, read_mask_image
from store_schema.errors import InputError
from store_schema.specs import SlideRecord, TileTable

_GEOJSON = (".geojson", ".json")
_POLYGON_SIDE_PX = 4096  # polygons are drawn this large, or at level 0 where that is smaller


@dataclass(frozen=True)
class TruthMask:
    """Where a slide is positive.

    Attributes
    ----------
    mask
        bool (y, x); covers the slide from its origin.
    px_level0
        Side of its pixels [px, level 0], as (x, y).
    """

    mask: npt.NDArray[np.bool_]
    px_level0: tuple[float, float]

    def fraction(
        self,
        x: npt.NDArray[np.integer],
        y: npt.NDArray[np.integer],
        tile_level0: int,
    ) -> npt.NDArray[np.float64]:
        """Return how much of each tile is positive, exactly, whatever the size of mask pixels.

        Parameters
        ----------
        x, y
            int (tile,), top-left corners [px, level 0].
        tile_level0
            Side of the square that a tile covers [px, level 0]. What lies outside of the slide is negative.

        Returns
        -------
        array
            float64 (tile,), 0 to 1.
        """
        px_x, px_y = self.px_level0
        # integral of the mask from the origin; between pixel corners it is bilinear (Crow 1984, summed-area tables)
        table = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1))
        table[1:, 1:] = self.mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
        left, right = x / px_x, (x + tile_level0) / px_x
        top, bottom = y / px_y, (y + tile_level0) / px_y
        inside = (
            _at(table, bottom, right)
            - _at(table, top, right)
            - _at(table, bottom, left)
            + _at(table, top, left)
        )
        return np.clip(inside * (px_x * px_y / tile_level0**2), 0.0, 1.0)


def _at(
    table: npt.NDArray[np.float64],
    rows: npt.NDArray[np.floating],
    columns: npt.NDArray[np.floating],
) -> npt.NDArray[np.float64]:
    rows = np.clip(rows, 0, table.shape[0] - 1)
    columns = np.clip(columns, 0, table.shape[1] - 1)
    i = np.minimum(rows.astype(np.intp), table.shape[0] - 2)
    j = np.minimum(columns.astype(np.intp), table.shape[1] - 2)
    down, along = rows - i, columns - j
    upper = table[i, j] * (1 - along) + table[i, j + 1] * along
    lower = table[i + 1, j] * (1 - along) + table[i + 1, j + 1] * along
    value: npt.NDArray[np.float64] = upper * (1 - down) + lower * down
    return value


@dataclass(frozen=True)
class MaskFolder:
    """A folder with masks of slides: ``<slide id>.<any image format>``, or GeoJSON in level-0 pixels.

    Attributes
    ----------
    path
        The folder.
    files
        Slide id → its masks.
    """

    path: Path
    files: Mapping[str, tuple[Path, ...]]

    @classmethod
    def of(cls, path: Path) -> MaskFolder:
        """List a folder.

        Raises
        ------
        InputError
            There is no such folder.
        """
        try:
            listed = sorted(p for p in path.iterdir() if p.is_file())
        except OSError as error:
            raise InputError(
                f"the folder of masks {path} can't be read ({error.strerror}): check the path"
            ) from error
        files: dict[str, tuple[Path, ...]] = {}
        for file in listed:
            files[file.stem] = (*files.get(file.stem, ()), file)
        return cls(path, files)

    def read(self, slide_id: str, width: int, height: int) -> TruthMask | None:
        """Read a slide's mask, None where there is none.

        Parameters
        ----------
        slide_id
            The slide; a mask is named after it.
        width, height
            Size of the slide [px, level 0]. An image covers all of it: its pixels' size follows.

        Raises
        ------
        InputError
            There are several masks, or the mask can't be read, or doesn't have the slide's proportions.
        """
        found = self.files.get(slide_id, ())
        if not found:
            return None
        if len(found) > 1:
            listed = ", ".join(file.name for file in found)
            raise InputError(
                f"{self.path} has several masks of slide {slide_id} ({listed}): keep one"
            )
        if found[0].suffix.lower() in _GEOJSON:
            px = max(1.0, max(width, height) / _POLYGON_SIDE_PX)
            drawn, px = read_mask_file(found[0], width, height, px)
            return TruthMask(drawn.astype(bool), (px, px))
        mask = read_mask_image(found[0], width, height)
        return TruthMask(mask, (width / mask.shape[1], height / mask.shape[0]))

    def mask(self, record: SlideRecord) -> TruthMask | None:
        """Return where a slide is positive; see :class:`jobs.evaluation.truth.Truth`."""
        return self.read(record.slide_id, record.width, record.height)

    def tiles(
        self, record: SlideRecord, table: TileTable, tile_level0: int, positive_from: float
    ) -> npt.NDArray[np.bool_] | None:
        """Return which tiles are positive; see :class:`jobs.evaluation.truth.Truth`."""
        mask = self.mask(record)
        if mask is None:
            return None
        return mask.fraction(table.x, table.y, tile_level0) > positive_from
