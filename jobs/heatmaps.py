"""Heatmaps of a store's scores: one PNG a slide, and contact sheets of them all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from dataflow.contact_sheet import Cell, SheetHead, contact_pages, sheet_cell
from dataflow.ground import read_ground
from dataflow.heat_colours import HeatmapStyle
from dataflow.heat_layers import Colour
from dataflow.heatmap import LONG_SIDE_PX, heatmap_picture
from dataflow.picture_parts import save_png
from jobs.evaluation.truth import Truth, open_truth
from jobs.heat_regions import TISSUE, find_regions
from jobs.heat_sources import HeatChoice, HeatSource, heat_source, slides_to_draw
from jobs.raster_reader import RasterChoice
from store_schema.errors import InputError, SlidestreamError
from store_schema.labels import some
from store_schema.slide_view import SlideView
from store_schema.store import Store

SHEET_NAME: Final = "contact_sheet"
_PAGE: Final = re.compile(rf"{SHEET_NAME}(-\d+)?")
_MOST_THREADS: Final = 8
_STEPS: Final = np.linspace(0, 1, 201)
_CUT: Final = (
    0.005  # of the pooled values, at either end: a few outliers don't darken all other slides
)


@dataclass(frozen=True)
class HeatmapSettings:
    """What is drawn, and how.

    Attributes
    ----------
    choice
        Which number of which run, or of which raster.
    out
        Folder of the pictures, ``<slide id>.png``.
    slides
        Only these; empty takes all that have the run.
    truth
        What is true, of any kind, to outline; None draws none.
    style
        Colours.
    mask
        Mask of the store to outline; None draws none.
    sheet
        Whether several slides get a contact sheet, too.
    overwrite
        Replace pictures that are there already.
    """

    choice: HeatChoice
    out: Path
    slides: tuple[str, ...] = ()
    truth: Path | None = None
    style: HeatmapStyle = field(default_factory=HeatmapStyle)
    mask: RasterChoice | None = None
    sheet: bool = True
    overwrite: bool = False


@dataclass(frozen=True)
class Heatmap:
    """What came of one slide.

    Attributes
    ----------
    slide_id
        The slide.
    path
        The picture, None where there is none.
    note
        What is missing in it: the slide below, mask, truth; or an empty string.
    problem
        Why there is no picture, or an empty string.
    """

    slide_id: str
    path: Path | None
    note: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Heatmaps:
    """What was drawn.

    Attributes
    ----------
    slides
        One a slide.
    sheets
        Pages of the contact sheet; none of a single slide.
    """

    slides: tuple[Heatmap, ...]
    sheets: tuple[Path, ...]


@dataclass(frozen=True)
class _Drawn:
    heatmap: Heatmap
    cell: Cell | None = None
    name: str = ""
    label: str = ""
    legend: tuple[tuple[Colour, str], ...] = ()


def draw_heatmaps(
    store: Store, settings: HeatmapSettings, done: Callable[[Heatmap], None] = lambda _: None
) -> Heatmaps:
    """Draw the heatmaps of a run; a slide that can't be drawn does not stop the others.

    Parameters
    ----------
    store
        Where the scores are.
    settings
        What to draw.
    done
        Is told of each slide, in order.

    Raises
    ------
    NotInStoreError
        A slide was named that the store hasn't, or no slide has the run.
    InputError
        There is no such truth, or a picture is there already or can't be written.
    """
    slides = slides_to_draw(store, settings.choice, settings.slides)
    with_sheet = settings.sheet and len(slides) > 1
    pictures = [_picture_path(settings, slide) for slide in slides]
    _check_free(settings, [*pictures, *(_sheets_in(settings.out) if with_sheet else ())])
    truth = None if settings.truth is None else open_truth(settings.truth)
    drawn = []
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        sheet_style = None
        if with_sheet:
            sheet_style = _sheet_style(pool, slides, settings)
        for one in pool.map(lambda slide: _draw(slide, settings, truth, sheet_style), slides):
            done(one.heatmap)
            drawn.append(one)
    sheets = [] if sheet_style is None else _draw_sheets(drawn, settings, sheet_style)
    return Heatmaps(tuple(one.heatmap for one in drawn), tuple(sheets))


def _picture_path(settings: HeatmapSettings, slide: SlideView) -> Path:
    return settings.out / f"{slide.slide_id}.png"


def _sheets_in(folder: Path) -> list[Path]:
    """Return the pages of contact sheets that are there."""
    pages = folder.glob(f"{SHEET_NAME}*.png")
    return sorted(path for path in pages if _PAGE.fullmatch(path.stem))


def _check_free(settings: HeatmapSettings, paths: Sequence[Path]) -> None:
    """Raise InputError if pictures are there, before any is drawn: they may show something else."""
    there = [path.name for path in paths if path.exists()]
    if there and not settings.overwrite:
        raise InputError(
            f"{settings.out} has {len(there)} of these pictures already ({some(there)}): give --overwrite, or another "
            "--out"
        )


def _draw(
    slide: SlideView, settings: HeatmapSettings, truth: Truth | None, sheet: HeatmapStyle | None
) -> _Drawn:
    slide_id = slide.slide_id
    try:
        source = heat_source(slide, settings.choice, LONG_SIDE_PX)
        regions = find_regions(source, settings.mask, truth, LONG_SIDE_PX)
        ground = read_ground(slide.record, LONG_SIDE_PX)
        lines = [line for line in (source.predicted, source.numbers, regions.line) if line]
        picture = heatmap_picture(
            slide_id, lines, ground, source.layer, regions.outlines, settings.style
        )
        path = _picture_path(settings, slide)
        save_png(picture, path, "heatmap")
        cell = None
        if sheet is not None:
            # so small, the tissue's outline would only hide it
            found = [outline for outline in regions.outlines if outline.label != TISSUE]
            caption = ",  ".join(filter(None, (source.caption, regions.caption)))
            cell = sheet_cell(slide_id, caption, ground, source.layer, found, sheet)
    except SlidestreamError as error:
        return _Drawn(Heatmap(slide_id, None, problem=str(error)))
    blank = f"blank ground: {ground.note}" * bool(ground.note)
    note = "; ".join(filter(None, (blank, regions.note)))
    legend = tuple(
        (outline.colour, outline.label) for outline in regions.outlines if outline.label != TISSUE
    )
    return _Drawn(Heatmap(slide_id, path, note), cell, source.name, source.layer.label, legend)


def _sheet_style(
    pool: ThreadPoolExecutor, slides: Sequence[SlideView], settings: HeatmapSettings
) -> HeatmapStyle:
    """Return the style that makes the slides of a sheet comparable: one range of values for all."""
    style = settings.style
    if style.limits is not None or style.percentile:
        return style

    def known_of(slide: SlideView) -> tuple[HeatSource, list[float]] | None:
        try:
            source = heat_source(slide, settings.choice, LONG_SIDE_PX)
        except SlidestreamError:  # is told of where it is drawn
            return None
        known = source.layer.values[np.isfinite(source.layer.values)]
        # each slide counts the same, whatever its size
        return source, np.quantile(known, _STEPS).tolist() if known.size else []

    low, high, every = None, None, list[float]()
    for found in pool.map(known_of, slides):
        if found is not None:
            low, high = found[0].layer.valid
            every += found[1]
    if not every:
        return style.with_limits((low or 0.0, high or 1.0))
    ends = np.quantile(every, (_CUT, 1 - _CUT))
    return style.with_limits(
        (float(ends[0]) if low is None else low, float(ends[1]) if high is None else high)
    )


def _draw_sheets(
    drawn: Sequence[_Drawn], settings: HeatmapSettings, style: HeatmapStyle
) -> list[Path]:
    cells = [one.cell for one in drawn if one.cell is not None]
    if not cells:
        return []
    legend = dict.fromkeys(entry for one in drawn for entry in one.legend)
    first = next(one for one in drawn if one.cell is not None)
    label = first.label
    limits = style.limits or (0.0, 100.0)  # percentiles have none
    if style.percentile:
        label += ", as percentile of each slide"
    head = SheetHead(first.name, label, limits, style, tuple(legend))
    pages = list(contact_pages(head, cells))
    paths = []
    for i, page in enumerate(pages, start=1):
        number = f"-{i}" if len(pages) > 1 else ""
        paths.append(settings.out / f"{SHEET_NAME}{number}.png")
        save_png(page, paths[-1], "contact sheet")
    for stale in set(_sheets_in(settings.out)) - set(paths):
        stale.unlink()  # pages of a longer sheet would pass for pages of this one
    return paths
