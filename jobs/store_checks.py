"""Checks of a store: that it is one, of our schema version, and how complete it is."""

from __future__ import annotations

from pathlib import Path

from jobs.checks import Check
from jobs.run_config import absolute_url
from store_schema import names
from store_schema.errors import SlidestreamError
from store_schema.inventory import GridContents, store_contents
from store_schema.store import open_store


def store_check(store: str) -> Check:
    """Open a store and count what is complete.

    Parameters
    ----------
    store
        Path or URL.
    """
    url = absolute_url(store)
    facts: dict[str, object] = {"url": url}
    if "://" not in url and not Path(url).exists():
        return Check("store", "ok", f"{store} is not there yet; a run makes it", facts)
    try:
        opened = open_store(url)
        contents = store_contents(opened)
    except SlidestreamError as error:
        return Check("store", "fail", str(error), {**facts, "reason": error.reason})
    unfinished = _unfinished(contents)
    facts |= {
        "schema_version": names.SCHEMA_VERSION,
        "slides": len(opened.slides),
        "tiles": sum(grid.tiles for grid in contents),
        "unfinished": unfinished,
    }
    says = f"schema version {names.SCHEMA_VERSION}, {len(opened.slides)} slides, {facts['tiles']:,} tiles"
    if unfinished:
        shown = ", ".join(unfinished[:3]) + (
            f" and {len(unfinished) - 3} more" if len(unfinished) > 3 else ""
        )
        says += f"; not complete: {shown} (run the same command again to go on)"
        return Check("store", "warn", says, facts)
    return Check("store", "ok", f"{says}, all complete", facts)


def _unfinished(contents: tuple[GridContents, ...]) -> list[str]:
    found = []
    for grid in contents:
        path = f"{grid.slide_id}/{grid.grid}"
        if not grid.complete:
            found.append(path)
        found += [
            f"{path}/{run.kind}/{run.name} ({run.done}/{run.total})"
            for run in grid.runs
            if run.done < run.total
        ]
    return found
