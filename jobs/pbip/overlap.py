"""The grid that slides are segmented on: one of the store, or the same with tiles that overlap."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from dataflow.discover import discover_slides
from dataflow.tissue import TissueMethod
from jobs.run_config import GridSettings, grid_spec
from jobs.run_directory import write_whole
from store_schema import names
from store_schema.errors import InputError, NotInStoreError
from store_schema.specs import GridSpec
from store_schema.store import Store


@dataclass(frozen=True)
class SegmentedSlide:
    """A slide that is to be segmented.

    Attributes
    ----------
    slide_id
        In the store.
    path
        Its file: where it was indexed, or where it is now.
    mpp
        Pixel size that a user gave over what the file says [µm/px, level 0], else None.
    """

    slide_id: str
    path: str
    mpp: float | None = None


def slides_to_segment(
    store: Store, grid: str, slide_ids: Sequence[str], files: Sequence[str]
) -> list[SegmentedSlide]:
    """Return the slides that have the grid, or those of them that are named.

    Parameters
    ----------
    store, grid
        Where they are.
    slide_ids
        Only these; empty takes all that have the grid.
    files
        Of slides that have moved since they were indexed; other slides are where they were.

    Raises
    ------
    NotInStoreError
        A named slide isn't there or has no such grid, or no slide has.
    """
    wanted = [store[i] for i in dict.fromkeys(slide_ids)] or [store[i] for i in store.slides]
    found = [slide for slide in wanted if grid in slide.grids]
    without = [slide for slide in wanted if grid not in slide.grids]
    if not found or (slide_ids and without):
        where = f"slide {without[0].slide_id}" if slide_ids else store.url
        raise NotInStoreError(f"{where} has no grid {grid!r}: make it by `slidestream index`")
    moved = {}
    if files:
        sources, problems = discover_slides(files)
        if problems:
            raise problems[0].error
        moved = {source.slide_id: source.path for source in sources}
    slides = []
    for slide in found:
        record = slide.record
        given = record.mpp if record.mpp_source == "user" else None
        path = moved.get(slide.slide_id, record.source)
        slides.append(SegmentedSlide(slide.slide_id, path, given))
    return slides


def overlapping(
    store: Store,
    slides: Sequence[SegmentedSlide],
    grid: str,
    overlap: float,
    tissue_mask: str | None = None,
) -> GridSettings | None:
    """Return how a grid is made again with tiles that overlap; None where it has that stride already.

    Tile size, pixel size, least tissue, edge, block and the way tissue is found are those of the grid.

    Parameters
    ----------
    store, slides, grid
        Slides and the grid of the store that they have.
    overlap
        Share of a tile's side that it has in common with the next one, below 1; 0 takes the grid as
        it is.
    tissue_mask
        Where masks are, of a grid that was laid by masks: the store doesn't keep their place.

    Raises
    ------
    InputError
        Slides have that grid in several kinds, or it can't be made by ``index``: its tiles were imported.
    """
    if overlap == 0:
        return None
    made = {slide.slide_id: store[slide.slide_id].grid_attrs(grid) for slide in slides}
    first_id, first = next(iter(made.items()))
    spec = GridSpec(**first[names.SPEC])
    for slide_id, attrs in made.items():
        if attrs[names.SPEC] != first[names.SPEC]:
            raise InputError(
                f"slides {first_id} and {slide_id} have grids {grid} that were made otherwise: segment them in two "
                "calls, each with its --slides"
            )
    stride_px = max(1, round(spec.tile_px * (1 - overlap)))
    if stride_px == spec.stride_px:
        return None
    settings = _settings(spec, stride_px, int(first[names.BLOCK_TILES]), tissue_mask)
    if settings is None or dict(grid_spec(settings).tissue) != dict(spec.tissue):
        raise InputError(
            f"grid {grid} wasn't laid by the options of `slidestream index`, so it can't be laid again with overlap: "
            f"make one by `slidestream index --stride-px {stride_px}`, and segment that without --overlap"
        )
    return settings


def _settings(
    spec: GridSpec, stride_px: int, block_tiles: int, tissue_mask: str | None
) -> GridSettings | None:
    method: TissueMethod | None = next(
        (known for known in get_args(TissueMethod) if known == spec.tissue.get("method")), None
    )
    if spec.mpp is None or method is None:
        return None
    if method == "mask" and tissue_mask is None:
        raise InputError(
            f"grid {spec.name} was laid by masks of tissue: say with --tissue-mask where they are"
        )
    return GridSettings(
        tile_px=spec.tile_px,
        tile_um=None,
        mpp=spec.mpp,
        stride_px=stride_px,
        edge=spec.edge,
        min_tissue=spec.min_tissue,
        tissue=method,
        tissue_threshold=spec.tissue.get("threshold"),
        tissue_mask=tissue_mask if method == "mask" else None,
        slide_mpp=None,
        grid_name=None if spec.label is None else f"{spec.label}_s{stride_px}",
        block_tiles=block_tiles,
        qc=False,
    )


def write_slide_list(path: Path, slides: Sequence[SegmentedSlide]) -> None:
    """Write the slides as the CSV that ``index`` takes: whatever their files are called, their ids stay."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("slide", "slide_id", "mpp"))
    rows.writerows((s.path, s.slide_id, "" if s.mpp is None else repr(s.mpp)) for s in slides)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue())
