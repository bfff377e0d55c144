"""Where a slide is positive, from a mask or annotations of the whole slide, and which tiles that makes positive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from dataflow.annotation_files import ANNOTATION_SUFFIXES, NOT_TUMOUR, read_annotations
from dataflow.annotations import check_reach, checked_crossings, draw
from dataflow.mask_files import read_mask_image
from store_schema.errors import InputError
from store_schema.specs import SlideRecord, TileTable

_DRAWN_SIDE_PX: Final = (
    4096  # annotations are drawn this large, or at level 0 where that is smaller
)
_SUFFIX: Final = "_mask"  # CAMELYON16 calls the mask of tumor_001 tumor_001_mask.tif


@dataclass(frozen=True)
class TruthMask:
    """Where a slide is positive.

    Attributes
    ----------
    mask
        bool (y, x); covers the slide from its origin.
    px_level0
        Side of its pixels [px, level 0], as (x, y).
    notes
        What should be known of it, in sentences.
    """

    mask: npt.NDArray[np.bool_]
    px_level0: tuple[float, float]
    notes: tuple[str, ...] = ()

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
        table = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1), dtype=np.int64)
        np.cumsum(self.mask, axis=0, out=table[1:, 1:])
        np.cumsum(table[1:, 1:], axis=1, out=table[1:, 1:])
        left, right = x / px_x, (x + tile_level0) / px_x
        top, bottom = y / px_y, (y + tile_level0) / px_y
        inside = (
            _at(table, bottom, right)
            - _at(table, top, right)
            - _at(table, bottom, left)
            + _at(table, top, left)
        )
        return np.clip(inside * (px_x * px_y / tile_level0**2), 0.0, 1.0)

    def at(self, x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        """Return which points of a lattice are positive, bool (y, x).

        Parameters
        ----------
        x, y
            float (x,) and (y,), positions of columns and rows [px, level 0]. What is outside of the slide is negative.
        """
        columns, rows = (
            np.floor(place / px).astype(np.intp)
            for place, px in zip((x, y), self.px_level0, strict=True)
        )
        height, width = self.mask.shape
        known_x, known_y = (columns >= 0) & (columns < width), (rows >= 0) & (rows < height)
        found = np.zeros((len(y), len(x)), dtype=bool)
        found[np.ix_(known_y, known_x)] = self.mask[np.ix_(rows[known_y], columns[known_x])]
        return found


def _at(
    table: npt.NDArray[np.int64],
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
    """Masks and annotations of slides, in files that are named after them.

    ``<slide id>.<any image format>`` (or ``<slide id>_mask.…``) of any scale, GeoJSON or ASAP's XML in level-0 pixels.

    Attributes
    ----------
    path
        The folder, or the file of one slide.
    files
        Slide id → its files.
    """

    path: Path
    files: Mapping[str, tuple[Path, ...]]

    @classmethod
    def of(cls, path: Path) -> MaskFolder:
        """List a folder, or take a single file.

        Raises
        ------
        InputError
            There is no such folder.
        """
        try:
            listed = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
        except OSError as error:
            raise InputError(
                f"the masks {path} can't be read ({error.strerror}): check the path"
            ) from error
        files: dict[str, tuple[Path, ...]] = {}
        for file in listed:
            stem = file.stem
            bare = stem[: -len(_SUFFIX)] if stem.lower().endswith(_SUFFIX) else stem
            for slide_id in {stem, bare}:
                files[slide_id] = (*files.get(slide_id, ()), file)
        return cls(path, files)

    def read(self, slide_id: str, width: int, height: int) -> TruthMask | None:
        """Read where a slide is positive, None where nothing is known.

        Parameters
        ----------
        slide_id
            The slide; its file is named after it.
        width, height
            Size of the slide [px, level 0]. An image covers all of it: its pixels' size follows.

        Raises
        ------
        InputError
            There are several files, or the file can't be read, or it isn't of this slide: an image of other
            proportions, annotations that reach beyond the slide. Or an annotation crosses itself.
        """
        found = self.files.get(slide_id, ())
        if not found:
            return None
        if len(found) > 1:
            listed = ", ".join(file.name for file in found)
            raise InputError(
                f"{self.path} has several masks of slide {slide_id} ({listed}): keep one"
            )
        file = found[0]
        if file.suffix.lower() in ANNOTATION_SUFFIXES:
            annotations = read_annotations(file, NOT_TUMOUR)
            check_reach(annotations, file, width, height)
            notes = checked_crossings(annotations, file)
            px = max(1.0, max(width, height) / _DRAWN_SIDE_PX)
            return TruthMask(draw(annotations, width, height, px), (px, px), notes)
        mask = read_mask_image(file, width, height)
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
