"""Which slides a call is about: files for run and index, the store's own for encode."""

from __future__ import annotations

from dataclasses import replace

from dataflow.discover import SlideSource, discover_slides
from dataflow.receipts import Failure
from jobs.run_config import RunConfig
from store_schema import names
from store_schema.errors import InputError, NotInStoreError
from store_schema.ids import check_name
from store_schema.slide_view import SlideView
from store_schema.specs import GridSpec
from store_schema.store import Store, open_store


def find_slides(config: RunConfig) -> tuple[list[SlideSource], list[Failure]]:
    """List the slides of a call.

    Returns
    -------
    sources
        What can be tried, in order.
    failures
        What was named but can't be tried, e.g. ids that can't be groups of a store.

    Raises
    ------
    NotInStoreError
        An id was named that the store hasn't.
    """
    if config.grid is not None:
        sources, problems = discover_slides(config.slides, mpp=config.grid.slide_mpp)
        return sources, [Failure.of(problem.slide_id, problem.error) for problem in problems]
    return _stored_slides(config, open_store(config.store_url))


def _stored_slides(config: RunConfig, store: Store) -> tuple[list[SlideSource], list[Failure]]:
    stored = {
        slide_id: store[slide_id].record
        for slide_id in store.slides
        if config.grid_name in store[slide_id].grids
    }
    sources = [
        SlideSource(slide_id, record.source, record.mpp if record.mpp_source == "user" else None)
        for slide_id, record in stored.items()
    ]
    failures = list[Failure]()
    if config.slide_ids:
        named = [store[slide_id].slide_id for slide_id in dict.fromkeys(config.slide_ids)]
        failures += [_without_grid(i, config) for i in named if i not in stored]
        sources = [source for source in sources if source.slide_id in named]
    if not config.slides:
        return sources, failures
    # files were given: the slides may have moved since they were indexed
    found, problems = discover_slides(config.slides)
    failures += [Failure.of(problem.slide_id, problem.error) for problem in problems]
    if config.slide_ids:
        moved = {source.slide_id: source.path for source in found}
        return [replace(s, path=moved.get(s.slide_id, s.path)) for s in sources], failures
    known = {source.slide_id: source for source in sources}
    chosen = []
    for source in found:
        if source.slide_id in known:
            chosen.append(replace(known[source.slide_id], path=source.path))
        else:
            failures.append(_without_grid(source.slide_id, config))
    return chosen, failures


def _without_grid(slide_id: str, config: RunConfig) -> Failure:
    error = NotInStoreError(
        f"Slide {slide_id!r} has no grid {config.grid_name!r} in {config.store}; index it first."
    )
    return Failure.of(slide_id, error)


def only_grid(store_url: str, wanted: str | None) -> str:
    """Return the grid that a command works on: the one that is named, or the store's only one.

    A grid with overlap that lies beside the same one without, as `slidestream pbip segment` lays it, must be named.

    Raises
    ------
    InputError
        The store has none, or several and none was named.
    """
    if wanted is not None:
        return check_name(wanted, "--grid")
    store = open_store(store_url)
    slide_of = {grid: slide_id for slide_id in store.slides for grid in store[slide_id].grids}
    if not slide_of:
        raise InputError(f"{store_url} holds no grid yet; run `slidestream index` first.")
    if len(slide_of) == 1:
        return next(iter(slide_of))
    meant = [
        grid
        for grid, slide_id in slide_of.items()
        if _without_overlap(store[slide_id], grid) not in slide_of.keys() - {grid}
    ]
    if len(meant) > 1:
        raise InputError(
            f"{store_url} holds several grids; name one with --grid: {', '.join(sorted(slide_of))}."
        )
    return meant[0]


def _without_overlap(slide: SlideView, grid: str) -> str:
    """Return how the grid of the same tiles, but side by side, is called."""
    spec = GridSpec(**slide.grid_attrs(grid)[names.SPEC])
    return replace(spec, stride_px=spec.tile_px).name
