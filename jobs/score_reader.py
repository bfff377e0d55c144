"""One number a tile from a store's scores: what heatmaps draw and evaluations judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jobs.run_places import grid_with, lacking, slides_with
from store_schema import names
from store_schema.errors import InputError, NotInStoreError
from store_schema.near_names import near
from store_schema.predictions import PREDICTION
from store_schema.slide_view import SlideView
from store_schema.specs import TileTable
from store_schema.store import Store

CLASS_NAMES: Final = "class_names"
"""Attribute of a (tile, class) array: the classes in their order."""


@dataclass(frozen=True)
class ScoreChoice:
    """Which number of which run.

    Attributes
    ----------
    run
        Name of the score group.
    array
        None takes the first declared.
    class_name
        Of a (tile, class) array; None takes the positive one of two, or the only one, or what the slide was
        predicted as.
    grid
        None takes the only grid that has the run.
    """

    run: str
    array: str | None = None
    class_name: str | None = None
    grid: str | None = None

    @classmethod
    def parse(
        cls, text: str, class_name: str | None = None, grid: str | None = None
    ) -> ScoreChoice:
        """Read ``RUN`` or ``RUN/ARRAY``."""
        run, _, array = text.partition("/")
        return cls(run, array or None, class_name, grid)


@dataclass(frozen=True)
class SlideScore:
    """A slide's tiles, with one number each.

    Attributes
    ----------
    slide, grid, run, array, class_name
        What was read; ``class_name`` is None where the array has none.
    table
        The tiles.
    tile_level0
        Side of the square that a tile covers [px, level 0].
    values
        float (tile,).
    attrs
        CF attributes of the array.
    prediction
        What the run said of the whole slide, empty where it didn't.
    """

    slide: SlideView
    grid: str
    run: str
    array: str
    class_name: str | None
    table: TileTable
    tile_level0: int
    values: npt.NDArray[np.floating]
    attrs: Mapping[str, Any]
    prediction: Mapping[str, Any]

    @property
    def what(self) -> str:
        """How legends call the number."""
        name = str(self.attrs.get("long_name", self.array))
        units = str(self.attrs.get("units", "1"))
        of_class = "" if self.class_name is None else f" for {self.class_name}"
        return f"{name}{of_class}{'' if units == '1' else f' [{units}]'}"


def scored_grid(slide: SlideView, choice: ScoreChoice) -> str | None:
    """Return the grid of a slide that has the run, None if there is none; see :func:`jobs.run_places.grid_with`."""
    return grid_with(slide, names.SCORES, choice.run, choice.grid)


def scored_slides(store: Store, choice: ScoreChoice, slide_ids: Sequence[str]) -> list[SlideView]:
    """Return the named slides or, where none are named, all that have it; see :func:`jobs.run_places.slides_with`."""
    return slides_with(store, names.SCORES, choice.run, choice.grid, slide_ids)


def read_score(
    slide: SlideView, choice: ScoreChoice, *, follow_prediction: bool = False
) -> SlideScore:
    """Read one number a tile.

    Parameters
    ----------
    slide, choice
        What to read.
    follow_prediction
        Where no class is named and there are more than two: take the one that is likeliest on this slide.

    Raises
    ------
    NotInStoreError
        The slide has no such run or array.
    IncompleteError, DamagedBlockError
        The run isn't complete on this slide, or a block of it is damaged.
    InputError
        The array isn't one number a tile, or a class must be named.
    """
    grid = scored_grid(slide, choice)
    if grid is None:
        where = f"slide {slide.slide_id}"
        raise NotInStoreError(lacking(where, [slide], names.SCORES, choice.run, choice.grid))
    group = slide.block_group(grid, names.SCORES, choice.run)
    array = choice.array if choice.array is not None else next(iter(group.arrays))
    if array not in group.arrays:
        raise NotInStoreError(
            f"{group.path} has no array {array!r}: {near(array, list(group.arrays))}"
        )
    group.require_complete()
    prediction = group.attrs[names.EXTRA].get(PREDICTION, {})
    spec = group.arrays[array]
    parts = [group.read_array(array, block) for block in range(group.n_blocks)]
    values: npt.NDArray[Any] = (
        np.concatenate(parts) if parts else np.empty((0, *spec.shape), spec.dtype)
    )
    class_name = None
    if spec.dims == (names.TILE, names.CLASS):
        classes = [str(name) for name in spec.attrs.get(CLASS_NAMES, range(spec.shape[0]))]
        class_name = _class(choice, group.path, classes, prediction if follow_prediction else {})
        values = values[:, classes.index(class_name)]
    elif spec.dims != (names.TILE,):
        raise map_of_tiles(f"{choice.run}/{array}")
    elif choice.class_name is not None:
        raise InputError(
            f"{group.path}/{array} is the same for all classes: leave --class away, or name another array"
        )
    geometry = slide.grid_attrs(grid)[names.GEOMETRY]
    return SlideScore(
        slide,
        grid,
        choice.run,
        array,
        class_name,
        slide.tile_table(grid),
        int(geometry["tile_level0"]),
        values,
        spec.attrs,
        prediction,
    )


def map_of_tiles(score: str) -> InputError:
    """Return the error of scores, ``RUN`` or ``RUN/ARRAY``, that are more than one number a tile; says the way."""
    return InputError(
        f"{names.SCORES}/{score} has a map a tile, not one number: `slidestream stitch` makes maps of slides of it, "
        "which `heatmap`, `evaluate` and `export ome-tiff` take as --raster"
    )


def _class(
    choice: ScoreChoice, path: str, classes: list[str], prediction: Mapping[str, Any]
) -> str:
    wanted = choice.class_name
    if wanted is None and len(classes) <= 2:
        wanted = classes[-1]
    elif wanted is None and prediction:
        likeliest = int(np.argmax(prediction["probabilities"]))
        wanted = str(prediction[CLASS_NAMES][likeliest])
    if wanted is None:
        raise InputError(f"{path} has the classes {', '.join(classes)}: name one with --class")
    if wanted not in classes:
        raise InputError(f"{path} has no class {wanted!r}: {near(wanted, classes)}")
    return wanted
