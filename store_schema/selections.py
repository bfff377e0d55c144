"""Selections: some tiles of a grid, best first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from store_schema import names
from store_schema.chunks import read_blocks
from store_schema.errors import IncompleteError, InputError
from store_schema.layout import SELECTION_ARRAYS, selection_array
from store_schema.objects import Objects
from store_schema.whole_groups import write_whole_group


def write_selection(
    objects: Objects,
    grid_path: str,
    name: str,
    tile_index: npt.NDArray[np.int32],
    rank_score: npt.NDArray[np.float32],
    *,
    n_tiles: int,
    provenance: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Write ``selections/<name>`` of a grid whole; the same again is a no-op.

    Parameters
    ----------
    objects, grid_path, name
        Where it goes.
    tile_index
        int32 (k,), positions of the selected tiles along ``tile``, best first.
    rank_score
        float32 (k,), what they were ranked by.
    n_tiles
        Of the grid.
    provenance
        What decides the selection; JSON-able.
    extra
        What else is to be known of it; JSON-able.
    overwrite
        Replace a selection of other settings.

    Raises
    ------
    InputError
        If an index is outside of the grid, or selected twice.
    SettingsConflictError
        If the selection was made otherwise; names what differs.
    """
    if tile_index.ndim != 1 or tile_index.shape != rank_score.shape:
        raise InputError(
            f"selection {name!r}: tile_index {tile_index.shape} and rank_score {rank_score.shape} differ"
        )
    if (
        np.any((tile_index < 0) | (tile_index >= n_tiles))
        or np.unique(tile_index).size != tile_index.size
    ):
        raise InputError(
            f"selection {name!r} has a tile twice, or one outside of 0 to {n_tiles - 1}"
        )
    values = {names.TILE_INDEX: tile_index, names.RANK_SCORE: rank_score}
    layouts = {array: selection_array(array, tile_index.size) for array in SELECTION_ARRAYS}
    write_whole_group(
        objects,
        grid_path,
        names.SELECTIONS,
        name,
        {array: (layout, values[array].astype(layout.dtype)) for array, layout in layouts.items()},
        provenance=provenance,
        facts={names.SELECTED: int(tile_index.size)},
        extra=extra,
        overwrite=overwrite,
    )


def read_selection(
    objects: Objects, path: str, attrs: Mapping[str, Any]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Return (tile_index, rank_score); IncompleteError if they aren't wholly written."""
    if not attrs[names.COMPLETE]:
        raise IncompleteError(
            f"{path} is not wholly written yet: run the same command again to complete it"
        )
    index, score = (
        read_blocks(objects, f"{path}/{array}", selection_array(array, attrs[names.SELECTED]))
        for array in (names.TILE_INDEX, names.RANK_SCORE)
    )
    return index.astype(np.int32, copy=False), score.astype(np.float32, copy=False)
