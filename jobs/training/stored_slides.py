"""Slides of a store whose pixels a training reads: where their files are, whether these are the right ones."""

from __future__ import annotations

from collections.abc import Sequence

from dataflow.discover import SlideSource
from dataflow.slide import open_slide
from dataflow.slide_digest import slide_digest
from store_schema import names
from store_schema.errors import InputError, SlideChangedError, SlidestreamError
from store_schema.labels import some
from store_schema.slide_view import SlideView
from store_schema.store import Store


def slide_source(slide: SlideView) -> SlideSource:
    """Return where a slide's file is, and the pixel size that was told instead of what the file says."""
    record = slide.record
    mpp = record.mpp if record.mpp_source == "user" else None
    return SlideSource(slide.slide_id, record.source, mpp)


def check_files(store: Store, slide_ids: Sequence[str]) -> None:
    """Open every slide, so that hours of work don't end at the last one.

    Raises
    ------
    InputError
        Files can't be read, or are of other slides than were indexed; the slides are named.
    """
    problems = []
    for slide_id in slide_ids:
        slide = store[slide_id]
        source = slide_source(slide)
        try:
            open_slide(source.path, source.mpp).close()
            if slide_digest(source.path) != slide.record.fingerprint:
                raise SlideChangedError(f"{source.path}: the file is not the one that was indexed")
        except SlidestreamError as error:
            problems.append(f"{slide_id}: {error}")
    if problems:
        raise InputError(
            f"{len(problems)} of {len(slide_ids)} slides can't be read; bring them back, or leave them out. "
            f"{some(problems)}"
        )


def common_scale(store: Store, grid: str, slide_ids: Sequence[str]) -> tuple[int, float | None]:
    """Return side [px] and pixel size [µm/px] of the tiles of a grid, which must be those of all slides.

    Raises
    ------
    InputError
        They aren't; slides that differ from the first are named.
    """
    scales = {i: _scale(store[i], grid) for i in slide_ids}
    first = next(iter(scales.values()))
    odd = [i for i, scale in scales.items() if scale != first]
    if odd:
        raise InputError(
            f"The grid {grid} of {len(odd)} slides ({some(odd)}) has tiles of another size or pixel size than that of "
            "the others: index them alike, or leave them out."
        )
    return first


def _scale(slide: SlideView, grid: str) -> tuple[int, float | None]:
    spec = slide.grid_attrs(grid)[names.SPEC]
    return int(spec["tile_px"]), spec["mpp"]
