"""The tiles of a cohort with their scores as one CSV table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from jobs.counted import counted
from jobs.export.each_slide import Exported
from jobs.export.tile_columns import read_tile_columns
from jobs.export.whole_file import whole_file
from jobs.mask_tiles import mask_of_tiles
from jobs.raster_reader import RasterChoice, read_raster
from jobs.run_places import slides_with
from jobs.same_scores import check_same_scores
from jobs.score_reader import ScoreChoice
from store_schema import names
from store_schema.errors import InputError, SlidestreamError
from store_schema.slide_view import SlideView
from store_schema.store import Store


@dataclass(frozen=True)
class CsvSettings:
    """What is exported.

    Attributes
    ----------
    out
        The file.
    score
        The run; without an array all of its arrays that have one number a tile, or one a class.
    mask
        A column with the value of this mask of the store; None has no such column.
    slides
        Only these; empty takes all that have the run.
    overwrite
        Replace a file that is there already.
    """

    out: Path
    score: ScoreChoice
    mask: RasterChoice | None = None
    slides: tuple[str, ...] = ()
    overwrite: bool = False


def export_csv(
    store: Store, settings: CsvSettings, done: Callable[[Exported], None] = lambda _: None
) -> list[Exported]:
    """Write a table with a row a tile; slides that can't be read are not in it.

    Parameters
    ----------
    store
        Where the run is.
    settings
        What to export.
    done
        Is told of each slide, in order.

    Raises
    ------
    NotInStoreError
        A slide was named that the store hasn't, or no slide has the run.
    InputError
        No slide can be exported, slides of the run have different arrays, or the file is there already or can't be
        written.
    """
    choice = settings.score
    slides = slides_with(store, names.SCORES, choice.run, choice.grid, settings.slides)
    found: list[Exported] = []
    columns: list[str] | None = None
    with (
        whole_file(settings.out, overwrite=settings.overwrite) as part,
        part.open("w", encoding="utf-8", newline="") as file,
    ):
        for slide in slides:
            try:
                table, left_out = _table(slide, settings)
            except SlidestreamError as error:
                found.append(Exported(slide.slide_id, problem=str(error)))
                done(found[-1])
                continue
            if columns is not None and list(table.columns) != columns:
                raise InputError(
                    f"slide {slide.slide_id} has the columns {', '.join(table.columns)}, those before "
                    f"{', '.join(columns)}: name one array, as RUN/ARRAY"
                )
            table.to_csv(file, index=False, header=columns is None)
            columns = list(table.columns)
            found.append(
                Exported(
                    slide.slide_id,
                    (settings.out,),
                    counted(len(table), "tile"),
                    left_out=left_out,
                )
            )
            done(found[-1])
        if columns is None:
            raise InputError(f"none of {len(found)} slides can be exported: {found[0].problem}")
    return found


def _table(slide: SlideView, settings: CsvSettings) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a slide's rows: where each tile lies, and its numbers; and which arrays are left out."""
    tiles = read_tile_columns(slide, settings.score)
    table = tiles.table
    frame = pd.DataFrame(
        {
            "slide_id": slide.slide_id,
            "grid": tiles.grid,
            "x": table.x,
            "y": table.y,
            "tile_level0": tiles.tile_level0,
            "row": table.row,
            "col": table.col,
            "tissue": table.tissue,
            **tiles.numbers,
        }
    )
    if settings.mask is not None:
        mask = read_raster(slide, settings.mask)
        check_same_scores(mask, slide, tiles.grid, tiles.run)
        frame[f"mask {mask.name}"] = mask_of_tiles(mask, tiles.grid, table, tiles.tile_level0)
    return frame, tiles.left_out
