"""All numbers that a run has of each tile, as named columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.run_places import grid_with, lacking
from jobs.score_reader import CLASS_NAMES, ScoreChoice, map_of_tiles
from store_schema import names
from store_schema.errors import InputError, NotInStoreError
from store_schema.near_names import near
from store_schema.slide_view import SlideView
from store_schema.specs import TileTable


@dataclass(frozen=True)
class TileColumns:
    """A slide's tiles with the numbers of a run.

    Attributes
    ----------
    slide, grid, run
        Whose they are.
    table
        The tiles.
    tile_level0
        Side of the square that a tile covers [px, level 0].
    numbers
        Name → float (tile,); an array by class has a column a class, ``probability tumor``.
    main
        The one to go by: the first, or the positive class of the first array.
    valid
        Ends of what ``main`` may range over, None where there is none.
    left_out
        Arrays that are not one number a tile, or one a class.
    codes
        Names of the numbers that are codes (CF flags, such as how a tile was normalized) and measure nothing.
    """

    slide: SlideView
    grid: str
    run: str
    table: TileTable
    tile_level0: int
    numbers: Mapping[str, npt.NDArray[np.floating]]
    main: npt.NDArray[np.floating]
    valid: tuple[float | None, float | None]
    left_out: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()

    @property
    def measurements(self) -> dict[str, npt.NDArray[np.floating]]:
        """Name → float (tile,), what is measured: all numbers but codes."""
        return {name: values for name, values in self.numbers.items() if name not in self.codes}


def read_tile_columns(slide: SlideView, choice: ScoreChoice) -> TileColumns:
    """Read the numbers of a run.

    Parameters
    ----------
    slide
        Where it is.
    choice
        Which; without an array all of them, without a class all classes.

    Raises
    ------
    NotInStoreError
        The slide has no such run or array.
    IncompleteError, DamagedBlockError
        The run isn't complete on this slide, or a block of it is damaged.
    InputError
        There is no such class, or no array with one number a tile.
    """
    grid = grid_with(slide, names.SCORES, choice.run, choice.grid)
    if grid is None:
        where = f"slide {slide.slide_id}"
        raise NotInStoreError(lacking(where, [slide], names.SCORES, choice.run, choice.grid))
    group = slide.block_group(grid, names.SCORES, choice.run)
    if choice.array is not None and choice.array not in group.arrays:
        known = list(group.arrays)
        raise NotInStoreError(
            f"{group.path} has no array {choice.array!r}: {near(choice.array, known)}"
        )
    group.require_complete()
    numbers, left_out, codes = dict[str, npt.NDArray[np.floating]](), list[str](), list[str]()
    main: npt.NDArray[np.floating] | None = None
    valid: tuple[float | None, float | None] = (None, None)
    for array in [choice.array] if choice.array is not None else group.arrays:
        spec = group.arrays[array]
        if spec.dims not in ((names.TILE,), (names.TILE, names.CLASS)):
            left_out.append(array)
            continue
        parts = [group.read_array(array, block) for block in range(group.n_blocks)]
        values = np.concatenate(parts) if parts else np.empty((0, *spec.shape), spec.dtype)
        columns = _columns(group.path, array, values, spec.attrs, choice.class_name)
        numbers.update(columns)
        if "flag_values" in spec.attrs:
            codes.extend(columns)
        if main is None:
            main, valid = list(columns.values())[-1], _valid(spec.attrs)
    if main is None:
        raise map_of_tiles(choice.run if choice.array is None else f"{choice.run}/{choice.array}")
    tile_level0 = int(slide.grid_attrs(grid)[names.GEOMETRY]["tile_level0"])
    table = slide.tile_table(grid)
    return TileColumns(
        slide,
        grid,
        choice.run,
        table,
        tile_level0,
        numbers,
        main,
        valid,
        tuple(left_out),
        tuple(codes),
    )


def _columns(
    path: str,
    array: str,
    values: npt.NDArray[Any],
    attrs: Mapping[str, Any],
    class_name: str | None,
) -> dict[str, npt.NDArray[np.floating]]:
    if values.ndim == 1:
        return {array: values}
    classes = [str(name) for name in attrs.get(CLASS_NAMES, range(values.shape[1]))]
    if class_name is not None and class_name not in classes:
        raise InputError(f"{path}/{array} has no class {class_name!r}: {near(class_name, classes)}")
    wanted = classes if class_name is None else [class_name]
    return {f"{array} {name}": values[:, classes.index(name)] for name in wanted}


def _valid(attrs: Mapping[str, Any]) -> tuple[float | None, float | None]:
    low, high = attrs.get("valid_range", (attrs.get("valid_min"), attrs.get("valid_max")))
    return low, high
