"""Image-level labels of tiles: those of their slide, or what a truth says of each tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from jobs.evaluation.truth import Truth
from jobs.mil.labels import LabelTable, negative_class
from store_schema import names
from store_schema.errors import InputError
from store_schema.labels import some
from store_schema.slide_view import SlideView

Labels = npt.NDArray[np.int8]

# a tile that is wholly positive holds nothing else, whatever rounding makes of 1
_WHOLE = 1 - 1e-6


class TileLabeller(Protocol):
    """Says which classes the tiles of a slide hold."""

    def __call__(self, slide: SlideView, grid: str) -> Labels | None:
        """Return int8 (tile, class), 1 where a tile holds the class; None where nothing is known of the slide."""
        ...


@dataclass(frozen=True)
class SlideLabels:
    """Every tile holds its slide's class: weak, since much of a tumour slide is no tumour.

    Attributes
    ----------
    table
        Of the slides.
    """

    table: LabelTable

    def __call__(self, slide: SlideView, grid: str) -> Labels:
        """Label all tiles of a slide alike."""
        labels = np.zeros(
            (slide.grid_attrs(grid)[names.N_TILES], len(self.table.class_names)), np.int8
        )
        labels[:, self.table.labels[self.table.rows[slide.slide_id]]] = 1
        return labels


@dataclass(frozen=True)
class TruthLabels:
    """Tiles hold what a truth says of them; a slide without truth that is labelled negative holds nothing else.

    Attributes
    ----------
    truth
        What is positive; all else is the negative class, see :func:`jobs.mil.labels.negative_class`.
    table
        Of the slides, of two classes.
    positive_from
        A tile holds a class if more of its area than this is of it. Below 0.5 it may hold both, above it none.
    """

    truth: Truth
    table: LabelTable
    positive_from: float

    def __post_init__(self) -> None:
        require_two_classes(self.table.class_names)

    def __call__(self, slide: SlideView, grid: str) -> Labels | None:
        """Label each tile."""
        attrs, table, record = slide.grid_attrs(grid), slide.tile_table(grid), slide.record
        side = int(attrs[names.GEOMETRY]["tile_level0"])
        positive = self.truth.tiles(record, table, side, self.positive_from)
        if positive is None:
            return SlideLabels(self.table)(slide, grid) if self.is_negative(slide) else None
        rest = min(1 - self.positive_from, _WHOLE)
        filled = self.truth.tiles(record, table, side, rest)
        assert filled is not None  # it wasn't a moment ago
        held = (~filled, positive) if self.negative == 0 else (positive, ~filled)
        return np.stack(held, 1).astype(np.int8)

    @property
    def negative(self) -> int:
        """Which class is the negative one."""
        return negative_class(self.table.class_names)

    def is_negative(self, slide: SlideView) -> bool:
        """Tell whether a slide is labelled negative."""
        return self.table.labels[self.table.rows[slide.slide_id]] == (self.negative,)


def require_two_classes(class_names: tuple[str, ...]) -> None:
    """Raise InputError unless a truth, which is positive or not, can tell the classes."""
    if len(class_names) != 2:
        raise InputError(
            f"The truth of tiles tells two classes, and there are {len(class_names)} ({some(class_names, 8)}): leave "
            "--tile-labels and --truth out, or take a bank of two classes."
        )
