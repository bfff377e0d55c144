"""Which slides, on which grids, have a run of a kind: scores, features, masks."""

from __future__ import annotations

from collections.abc import Sequence

from store_schema.errors import InputError, NotInStoreError
from store_schema.near_names import near
from store_schema.slide_view import SlideView
from store_schema.store import Store


def grid_with(slide: SlideView, kind: str, run: str, grid: str | None) -> str | None:
    """Return the grid of a slide that has the run, None if there is none.

    Parameters
    ----------
    slide
        Where to look.
    kind
        ``features``, ``scores``, ``masks`` or ``selections``.
    run
        Name of the group.
    grid
        Only this grid; None looks on all.

    Raises
    ------
    InputError
        If several grids have it and none was chosen.
    """
    grids = [g for g in slide.grids if grid in (None, g) and run in slide.runs(g, kind)]
    if len(grids) > 1:
        raise InputError(
            f"slide {slide.slide_id} has {kind} {run} on {', '.join(grids)}: name one with --grid"
        )
    return grids[0] if grids else None


def slides_with(
    store: Store, kind: str, run: str, grid: str | None, slide_ids: Sequence[str] = ()
) -> list[SlideView]:
    """Return the named slides or, where none are named, all that have the run.

    Parameters
    ----------
    store, kind, run, grid
        As of :func:`grid_with`.
    slide_ids
        These, whether they have it or not.

    Raises
    ------
    NotInStoreError
        A slide was named that the store hasn't, or no slide has the run.
    """
    if slide_ids:
        return [store[slide_id] for slide_id in slide_ids]
    every = [store[slide_id] for slide_id in store.slides]
    found = [slide for slide in every if grid_with(slide, kind, run, grid) is not None]
    if not found:
        raise NotInStoreError(lacking(store.url, every, kind, run, grid))
    return found


def lacking(where: str, slides: Sequence[SlideView], kind: str, run: str, grid: str | None) -> str:
    """Say that slides don't have a run, and what they have: other runs, or other grids with that run."""
    runs_of = {(g, name) for s in slides for g in s.grids for name in s.runs(g, kind)}
    grids = sorted({g for g, name in runs_of if name == run})
    if grid is not None and grids:
        return f"{where} has no {kind} {run!r} on the grid {grid!r}: {near(grid, grids)}"
    return f"{where} has no {kind} {run!r}: {near(run, sorted({name for _, name in runs_of}))}"
