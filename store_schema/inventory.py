"""What a store holds and how far it is: by listing objects, without reading their data."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from store_schema import names
from store_schema.prototypes import prototype_attrs

if TYPE_CHECKING:
    from store_schema.slide_view import SlideView
    from store_schema.store import Store

LIST_THREADS = 8


@dataclass(frozen=True)
class RunProgress:
    """One run (feature set, score run, selection, mask) of one slide's grid.

    Attributes
    ----------
    kind, name
        E.g. ``features`` and ``efficientnet-lite0``.
    done, total
        Blocks; of groups that are written whole 0 or 1 of 1.
    """

    kind: str
    name: str
    done: int
    total: int


@dataclass(frozen=True)
class GridContents:
    """One grid of one slide."""

    slide_id: str
    grid: str
    tiles: int
    complete: bool
    runs: tuple[RunProgress, ...]


def slide_contents(slide: SlideView) -> tuple[GridContents, ...]:
    """Return what a slide holds, grid by grid."""
    return tuple(
        GridContents(
            slide.slide_id,
            grid,
            slide.grid_attrs(grid)[names.N_TILES],
            slide.grid_complete(grid),
            tuple(_runs(slide, grid)),
        )
        for grid in slide.grids
    )


def store_contents(store: Store) -> tuple[GridContents, ...]:
    """Return what a store holds, slide by slide; several slides are listed at a time."""
    slides = [store[slide_id] for slide_id in store.slides]
    with ThreadPoolExecutor(LIST_THREADS) as pool:
        return tuple(grid for grids in pool.map(slide_contents, slides) for grid in grids)


def _runs(slide: SlideView, grid: str) -> Iterator[RunProgress]:
    for kind, progress in (
        (names.FEATURES, slide.features(grid)),
        (names.SCORES, slide.scores(grid)),
    ):
        for name, (done, total) in progress.items():
            yield RunProgress(kind, name, done, total)
    for kind in (names.SELECTIONS, names.MASKS):
        for name in slide.runs(grid, kind):
            yield RunProgress(kind, name, int(slide.run_attrs(grid, kind, name)[names.COMPLETE]), 1)


def store_text(store: Store) -> str:
    """Return a store's contents as text: one line a grid, one line a run, over all slides."""
    contents = store_contents(store)
    lines = [f"<Store {store.url}: {_count(len(store.slides), 'slide')}>"]
    for grid in sorted({c.grid for c in contents}):
        here = [c for c in contents if c.grid == grid]
        unfinished = sum(not c.complete for c in here)
        note = f", {unfinished} not wholly indexed" if unfinished else ""
        lines.append(
            f"  {grid}: {_count(len(here), 'slide')}, {_count(sum(c.tiles for c in here), 'tile')}{note}"
        )
        for kind, name in sorted({(run.kind, run.name) for c in here for run in c.runs}):
            runs = [run for c in here for run in c.runs if (run.kind, run.name) == (kind, name)]
            whole = sum(run.done == run.total for run in runs)
            lines.append(f"    {kind}/{name}: {whole}/{len(here)} slides complete{_blocks(runs)}")
        lines.extend(
            _several(sorted({r.name for c in here for r in c.runs if r.kind == names.SCORES}))
        )
    for name in store.banks:
        bank = prototype_attrs(store.objects, name)
        classes = ", ".join(
            f"{k} of {c}" for c, k in zip(bank[names.CLASS_NAMES], bank[names.K_LIST], strict=True)
        )
        note = "" if bank[names.COMPLETE] else ", not wholly written"
        lines.append(f"  prototypes {name}: {classes}{note}")
    return "\n".join(lines)


def slide_text(slide: SlideView) -> str:
    """Return a slide's contents as text."""
    record = slide.record
    mpp = "unknown mpp" if record.mpp is None else f"{record.mpp:.4g} µm/px ({record.mpp_source})"
    lines = [
        f"<Slide {slide.slide_id}: {record.vendor}, {record.width} x {record.height} px, {mpp}>"
    ]
    for grid in slide_contents(slide):
        lines.append(
            f"  {grid.grid}: {_count(grid.tiles, 'tile')}{'' if grid.complete else ', not wholly indexed'}"
        )
        lines.extend(f"    {run.kind}/{run.name}: {run.done}/{run.total}" for run in grid.runs)
        lines.extend(_several([run.name for run in grid.runs if run.kind == names.SCORES]))
    return "\n".join(lines)


def _several(scores: list[str]) -> list[str]:
    """Say that of several score runs none comes with the tiles unless it is named."""
    return (
        [f'    tiles(…) has no scores unless named: scores="{scores[0]}"']
        if len(scores) > 1
        else []
    )


def _blocks(runs: list[RunProgress]) -> str:
    if runs[0].kind not in (names.FEATURES, names.SCORES):
        return ""
    return f", {sum(run.done for run in runs):,}/{sum(run.total for run in runs):,} blocks"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
