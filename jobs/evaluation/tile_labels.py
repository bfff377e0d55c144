"""What is true of tiles, from a table that says it tile by tile."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.evaluation.tile_truth import TruthMask
from store_schema.errors import InputError
from store_schema.specs import SlideRecord, TileTable

_COLUMNS: Final = ("slide_id", "x", "y", "label")
_LABELS: Final = {"0": False, "1": True, "0.0": False, "1.0": True}  # pandas writes floats

Corner = tuple[int, int]


@dataclass(frozen=True)
class TileLabels:
    """Labels of tiles, by their corners. Of pixels and lesions they say nothing.

    Attributes
    ----------
    path
        The table.
    labels
        Slide id → corner (x, y) [px, level 0] → whether that tile is positive.
    """

    path: Path
    labels: Mapping[str, Mapping[Corner, bool]]

    @classmethod
    def of(cls, path: Path) -> TileLabels:
        """Read a CSV with the columns slide_id, x, y (top-left corner [px, level 0]) and label (0 or 1).

        Raises
        ------
        InputError
            The table can't be read, lacks a column, or a row makes no sense or repeats another.
        """
        labels: dict[str, dict[Corner, bool]] = {}
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, skipinitialspace=True)
                missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
                if missing:
                    raise InputError(
                        f"the tile labels {path} lack the columns {', '.join(missing)}: they need "
                        f"{', '.join(_COLUMNS)}, parted by commas"
                    )
                for row in reader:
                    slide_id, corner, label = _row(row, f"line {reader.line_num} of {path}")
                    of_slide = labels.setdefault(slide_id, {})
                    if corner in of_slide:
                        raise InputError(
                            f"line {reader.line_num} of {path}: the tile at {corner} of slide {slide_id} is there twice"
                        )
                    of_slide[corner] = label
        except OSError as error:
            raise InputError(
                f"the tile labels {path} can't be read ({error.strerror}): check the path"
            ) from error
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(
                f"the tile labels {path} can't be read as CSV ({error}): save them as UTF-8"
            ) from error
        return cls(path, labels)

    def mask(self, record: SlideRecord) -> TruthMask | None:
        """Return None: only tiles are known; see :class:`jobs.evaluation.truth.Truth`."""
        return None

    def tiles(
        self, record: SlideRecord, table: TileTable, tile_level0: int, positive_from: float
    ) -> npt.NDArray[np.bool_] | None:
        """Return which tiles are positive; see :class:`jobs.evaluation.truth.Truth`.

        Labels of places that the grid has no tile of (no tissue) are not looked at.

        Raises
        ------
        InputError
            A tile of the grid has no label: they are of another grid, shifted, or not all there.
        """
        known = self.labels.get(record.slide_id)
        if known is None:
            return None
        corners = list(zip(table.x.tolist(), table.y.tolist(), strict=True))
        without = [corner for corner in corners if corner not in known]
        if without:
            raise InputError(
                f"{self.path} labels {len(corners) - len(without)} of the {len(corners)} tiles of slide "
                f"{record.slide_id}, and not the one at {without[0]}: label all tiles of the grid by their top-left "
                "corners in level-0 pixels"
            )
        return np.array([known[corner] for corner in corners], dtype=bool)


def _row(row: Mapping[str, str | None], where: str) -> tuple[str, Corner, bool]:
    slide_id, x, y, label = ((row.get(name) or "").strip() for name in _COLUMNS)
    if not slide_id:
        raise InputError(f"{where}: no slide is named")
    try:
        corner = int(x.removesuffix(".0")), int(y.removesuffix(".0"))
    except ValueError as error:
        raise InputError(
            f"{where}: the corner ({x!r}, {y!r}) isn't two whole numbers of level-0 pixels"
        ) from error
    if label not in _LABELS:
        raise InputError(
            f"{where}: the label {label!r} is neither 0 nor 1; 1 says that a tile is positive"
        )
    return slide_id, corner, _LABELS[label]
