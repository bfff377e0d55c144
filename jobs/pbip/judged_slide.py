"""A slide's pixels and tiles, counted by their true class and by what was said of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.evaluation.model_split import ModelSplit
from jobs.pbip.class_truth import GridTiles, SlideClasses
from jobs.pbip.segmented_mask import SegmentedMask
from models.confusion import Confusion
from models.weak_tiles import UNKNOWN

Classes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class JudgedSlide:
    """What a slide comes to.

    Attributes
    ----------
    tiles
        The tiles that were judged.
    confusion
        Of the slide's pixels that lie in a tile.
    of_tiles
        Of each tile's pixels, in the order of the grid.
    gated
        Whether what was judged had been told the slide's label.
    model_split
        Which part of the networks' training the slide was in, as far as the scores say.
    notes
        What should be known, in sentences.
    """

    tiles: GridTiles
    confusion: Confusion
    of_tiles: tuple[Confusion, ...]
    gated: bool = False
    model_split: ModelSplit | None = None
    notes: tuple[str, ...] = ()

    @property
    def slide_id(self) -> str:
        """The slide."""
        return self.tiles.slide.slide_id


@dataclass(frozen=True, eq=False)
class Rasters:
    """The classes of a slide's pixels, uint8 (y, x) by index.

    Attributes
    ----------
    truth
        UNKNOWN where nothing is known, or no tile lies.
    predicted
        The number of classes where nothing was said.
    x, y
        Centres of columns and rows [px, level 0].
    """

    truth: Classes
    predicted: Classes
    x: npt.NDArray[np.floating]
    y: npt.NDArray[np.floating]


def read_rasters(mask: SegmentedMask, known: SlideClasses) -> Rasters:
    """Read what was said and what is true, on the pixels of the mask; both are in memory as a whole."""
    predicted = mask.read()
    px, (left, top) = mask.raster.px_level0, mask.raster.origin_level0
    x = left + (np.arange(predicted.shape[1]) + 0.5) * px
    y = top + (np.arange(predicted.shape[0]) + 0.5) * px
    truth = known.at(x, y)
    truth[~known.tiles.covering(x, y)] = UNKNOWN
    return Rasters(truth, predicted, x, y)


def judge_mask(mask: SegmentedMask, known: SlideClasses) -> JudgedSlide:
    """Count a slide.

    Parameters
    ----------
    mask
        What was said.
    known
        What is true, and the tiles: pixels outside of them don't count, those of several tiles count once.
    """
    rasters = read_rasters(mask, known)
    n = len(mask.class_names)
    of_tiles = [
        Confusion.of(rasters.truth[window], rasters.predicted[window], n)
        for window in known.tiles.windows(rasters.x, rasters.y)
    ]
    return JudgedSlide(
        known.tiles,
        Confusion.of(rasters.truth, rasters.predicted, n),
        tuple(of_tiles),
        mask.gated,
        mask.model_split(),
        tuple(known.notes),
    )
