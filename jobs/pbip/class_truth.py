"""The true class of a slide's pixels, from truths that each know where one class is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs.evaluation.slide_truth import SlideTruth, WithoutTruth, truth_of_tiles
from jobs.evaluation.truth import Truth, open_truth
from models.weak_tiles import UNKNOWN
from store_schema import names
from store_schema.errors import InputError
from store_schema.near_names import near
from store_schema.slide_view import SlideView
from store_schema.specs import TileTable

Places = npt.NDArray[np.floating]


@dataclass(frozen=True)
class GridTiles:
    """The tiles of one slide that are judged.

    Attributes
    ----------
    slide, grid
        Whose they are.
    table, tile_level0
        The tiles, and the side of the square that each covers [px, level 0].
    """

    slide: SlideView
    grid: str
    table: TileTable
    tile_level0: int

    @classmethod
    def of(cls, slide: SlideView, grid: str) -> GridTiles:
        """Read a grid; NotInStoreError if the slide has none of that name."""
        tile_level0 = int(slide.grid_attrs(grid)[names.GEOMETRY]["tile_level0"])
        return cls(slide, grid, slide.tile_table(grid), tile_level0)

    def windows(self, x: Places, y: Places) -> list[tuple[slice, slice]]:
        """Return rows and columns of each tile, those whose centres it covers.

        Parameters
        ----------
        x, y
            float (x,) and (y,), ascending centres of columns and rows [px, level 0].
        """
        ends = [
            np.searchsorted(at, corner + offset)
            for at, corner in ((y, self.table.y), (x, self.table.x))
            for offset in (0, self.tile_level0)
        ]
        return [
            (slice(top, bottom), slice(left, right))
            for top, bottom, left, right in zip(*(end.tolist() for end in ends), strict=True)
        ]

    def covering(
        self, x: Places, y: Places, which: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.bool_]:
        """Return which points of a lattice (see :meth:`windows`) lie in a tile, or in one of some: bool (y, x)."""
        found = np.zeros((len(y), len(x)), bool)
        for number, window in enumerate(self.windows(x, y)):
            if which is None or which[number]:
                found[window] = True
        return found


@dataclass(frozen=True)
class SlideClasses:
    """The true classes of a slide.

    Attributes
    ----------
    tiles
        The tiles that are judged.
    truths
        Class → where it is.
    background
        The class of what is in none of them.
    """

    tiles: GridTiles
    truths: Mapping[int, SlideTruth]
    background: int

    def at(self, x: Places, y: Places) -> npt.NDArray[np.uint8]:
        """Return the class at points, uint8 (y, x); UNKNOWN where there are two.

        Parameters
        ----------
        x, y
            As of :meth:`GridTiles.windows`.
        """
        found = np.full((len(y), len(x)), self.background, np.uint8)
        told = np.zeros(found.shape, bool)
        for k, truth in self.truths.items():
            mask = truth.mask
            here = self.tiles.covering(x, y, truth.tiles) if mask is None else mask.at(x, y)
            found[here] = k
            found[here & told] = UNKNOWN
            told |= here
        return found

    @property
    def notes(self) -> list[str]:
        """What should be known of it, in sentences."""
        said = [note for truth in self.truths.values() for note in truth.notes]
        if not self.knows_pixels:
            said.append("only its tiles are known: all pixels of a tile count as what the tile is")
        return said

    @property
    def knows_pixels(self) -> bool:
        """Whether all that is known is known of pixels."""
        return all(truth.mask is not None for truth in self.truths.values())


@dataclass(frozen=True)
class ClassTruth:
    """What is known of all slides.

    Attributes
    ----------
    truths
        Class → where it is; a class without a truth is nowhere.
    background
        The class of all else.
    without_truth
        What becomes of slides that none of the truths knows.
    """

    truths: Mapping[int, Truth]
    background: int
    without_truth: WithoutTruth = "skip"

    def of_slide(self, tiles: GridTiles) -> SlideClasses | None:
        """Return the true classes of a slide, None where nothing is known.

        A slide that one of several truths knows has nothing of the others.

        Raises
        ------
        InputError
            A truth can't be read, or doesn't fit the slide.
        """
        known = {}
        for k, truth in self.truths.items():
            found = truth_of_tiles(
                truth, tiles.slide.record, tiles.table, tiles.tile_level0, 0.5, self.without_truth
            )
            if found is not None:
                known[k] = found
        return SlideClasses(tiles, known, self.background) if known else None


def open_class_truth(
    given: Sequence[tuple[str | None, Path]],
    class_names: Sequence[str],
    background: int,
    without_truth: WithoutTruth,
) -> ClassTruth:
    """Open the truths of some classes.

    Parameters
    ----------
    given
        Class and path, as of :func:`jobs.evaluation.truth.open_truth`. Of two classes the name may be None: it is
        where the one is that isn't the background.
    class_names
        Of the segmentation, in their order.
    background
        The class of what is in none of the truths.
    without_truth
        What becomes of slides that none knows.

    Raises
    ------
    InputError
        There is no such class, a class has two truths or is the background, or must be named.
    """
    truths: dict[int, Truth] = {}
    for name, path in given:
        others = [k for k in range(len(class_names)) if k != background]
        if name is None and len(others) != 1:
            raise InputError(
                f"there are the classes {', '.join(class_names)}: say which one {path} is of, as --truth CLASS={path}"
            )
        if name is not None and name not in class_names:
            raise InputError(
                f"--truth {name}={path}: there is no such class: {near(name, list(class_names))}"
            )
        k = others[0] if name is None else class_names.index(name)
        if k == background:
            raise InputError(
                f"{class_names[k]} is what no truth marks: give the truth of another class, or another --background"
            )
        if k in truths:
            raise InputError(f"the class {class_names[k]} has two truths: give one")
        truths[k] = open_truth(path)
    return ClassTruth(truths, background, without_truth)
