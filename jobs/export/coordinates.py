"""Coordinates of tiles in the layout of slide2vec and hs2p, one ``.npy`` a slide.

A structured array with a row a tile; the fields are those of :mod:`jobs.coordinates.files`. The slide's name is text of
a fixed length, so that no reader has to unpickle anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dataflow.slide import open_slide
from dataflow.stored_plan import stored_plan
from jobs.coordinates.files import FACTOR, LEVEL, LEVEL0, RESIZED, SIZE, SPACING, WSI_NAME
from jobs.export.each_slide import Exported, export_slides
from jobs.export.whole_file import whole_file
from jobs.find_slides import only_grid
from store_schema import names
from store_schema.errors import NotInStoreError
from store_schema.near_names import near
from store_schema.slide_view import SlideView
from store_schema.store import Store


@dataclass(frozen=True)
class CoordinatesSettings:
    """What is exported.

    Attributes
    ----------
    out
        Folder of the files, ``<slide id>.npy``.
    grid
        None takes the only grid of the store.
    slides
        Only these; empty takes all that have the grid.
    overwrite
        Replace files that are there already.
    """

    out: Path
    grid: str | None = None
    slides: tuple[str, ...] = ()
    overwrite: bool = False


def export_coordinates(
    store: Store, settings: CoordinatesSettings, done: Callable[[Exported], None] = lambda _: None
) -> list[Exported]:
    """Write one file a slide; a slide that can't be exported does not stop the others.

    Parameters
    ----------
    store
        Where the grids are; slides' files are opened, for their levels.
    settings
        What to export.
    done
        Is told of each slide, in order.

    Raises
    ------
    NotInStoreError
        A slide was named that the store hasn't, or no slide has the grid.
    """
    grid = only_grid(store.url, settings.grid)
    if settings.slides:
        slides = [store[slide_id] for slide_id in settings.slides]
    else:
        every = [store[slide_id] for slide_id in store.slides]
        slides = [slide for slide in every if grid in slide.grids]
        if not slides:
            known = sorted({name for slide in every for name in slide.grids})
            raise NotInStoreError(f"{store.url} has no grid {grid!r}: {near(grid, known)}")
    return export_slides(slides, lambda slide: _export(slide, grid, settings), done)


def _export(slide: SlideView, grid: str, settings: CoordinatesSettings) -> Exported:
    rows = coordinate_rows(slide, grid)
    path = settings.out / f"{slide.slide_id}.npy"
    with whole_file(path, overwrite=settings.overwrite) as part, part.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
    return Exported(slide.slide_id, (path,), f"{len(rows):,} tiles")


def coordinate_rows(slide: SlideView, grid: str) -> npt.NDArray[Any]:
    """Return a slide's tiles as slide2vec and hs2p have them, in stored order.

    Raises
    ------
    SlideError
        The slide's file can't be opened.
    """
    record, attrs = slide.record, slide.grid_attrs(grid)
    reader = open_slide(record.source, record.mpp if record.mpp_source == "user" else None)
    try:
        plan = stored_plan(reader.info, slide, grid)
    finally:
        reader.close()
    table = slide.tile_table(grid)
    resized = round(plan.tile_level_px)
    values: dict[str, tuple[str, Any]] = {
        "x": ("i4", table.x),
        "y": ("i4", table.y),
        LEVEL: ("i4", plan.level),
        RESIZED: ("i4", resized),
        SIZE: ("i4", plan.tile_px),
        LEVEL0: ("i4", plan.tile_level0),
        FACTOR: ("f4", resized / plan.tile_px),
        SPACING: ("f8", attrs[names.SPEC]["mpp"]),
        WSI_NAME: (f"U{len(slide.slide_id)}", slide.slide_id),
    }
    if attrs[names.SPEC]["mpp"] is None:
        del values[SPACING]
    rows = np.zeros(len(table), [(name, dtype) for name, (dtype, _) in values.items()])
    for name, (_, column) in values.items():
        rows[name] = column
    return rows
