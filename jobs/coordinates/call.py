"""``index --coordinates``, and the grid that ``pbip prototypes --coordinates`` makes for itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from dataflow.discover import SlideSource, discover_slides
from dataflow.receipts import Failure
from jobs.coordinates.files import read_folder
from jobs.coordinates.lay import LaySpec, lay_coordinates
from jobs.one_line import one_line
from store_schema.errors import InputError
from store_schema.ids import check_name
from store_schema.labels import some
from store_schema.store import Store, create_store

_SHOWN: Final = 20


@dataclass(frozen=True)
class CoordinatesConfig:
    """One call of ``index --coordinates``.

    Attributes
    ----------
    folder, slides, store
        Coordinates, slides, and where the grids go.
    spec
        What the files don't say.
    slide_mpp
        Pixel size of the slides [µm/px, level 0], over what they say.
    """

    folder: str
    slides: tuple[str, ...]
    store: str
    spec: LaySpec
    slide_mpp: float | None = None


def index_coordinates(config: CoordinatesConfig) -> dict[str, Any]:
    """Make grids of a folder of coordinates.

    Returns
    -------
    dict
        JSON-able summary; it is ``ok`` unless a slide or file fails or a slide has no coordinates.

    Raises
    ------
    InputError
        There are no coordinates, or no slides.
    """
    if config.spec.grid_name is not None:
        check_name(config.spec.grid_name, "--grid-name")
    folder = read_folder(Path(config.folder))
    sources, problems = discover_slides(config.slides, mpp=config.slide_mpp)
    laid = lay_coordinates(create_store(config.store), folder, sources, config.spec)
    failures = [*(Failure.of(p.slide_id, p.error) for p in problems), *laid.failures]
    return {
        "command": "index",
        "store": config.store,
        "coordinates": config.folder,
        "ok": not failures and not laid.without_coordinates,
        "grids": list(laid.grids),
        "slides": {
            "asked": len(sources) + len(problems),
            "complete": len(laid.slides),
            "failed": len(failures),
        },
        "tiles": sum(slide.n_tiles for slide in laid.slides),
        "coordinates_without_slide": list(laid.without_slide),
        "slides_without_coordinates": list(laid.without_coordinates),
        "notes": {slide.slide_id: list(slide.notes) for slide in laid.slides if slide.notes},
        "failures": [asdict(failure) for failure in failures],
    }


@dataclass(frozen=True)
class LaidForStore:
    """The grid that coordinates made on slides of a store, and what is to be said of it."""

    grid: str
    notes: tuple[str, ...]


def lay_stored(store: Store, path: Path, grid_name: str | None) -> LaidForStore:
    """Make a grid of coordinates on those slides of a store that have some.

    Parameters
    ----------
    store
        Opened for writing; its slides' files must be where they were.
    path
        Folder of coordinates, which say how large tiles are.
    grid_name
        Of the grid; None names it by size and pixel size.

    Raises
    ------
    InputError
        No slide can have a grid of them, or slides come to several grids.
    """
    folder = read_folder(path)
    records = [store[slide_id].record for slide_id in store.slides]
    sources = [
        SlideSource(r.slide_id, r.source, r.mpp if r.mpp_source == "user" else None)
        for r in records
    ]
    laid = lay_coordinates(store, folder, sources, LaySpec(grid_name=grid_name))
    notes = [f"{failure.slide_id}: {failure.message}" for failure in laid.failures]
    for slides, what in (
        (laid.without_slide, "coordinates without a slide"),
        (laid.without_coordinates, "slides without coordinates"),
    ):
        if slides:
            notes.append(f"{len(slides)} {what} ({some(slides)})")
    if not laid.slides:
        raise InputError(f"no slide of {store.url} gets a grid of {path}: {'; '.join(notes[:3])}")
    if len(laid.grids) > 1:
        raise InputError(
            f"the coordinates {path} come to several grids ({', '.join(laid.grids)}): name one with --grid"
        )
    return LaidForStore(laid.grids[0], tuple(notes))


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Write the summary that a person reads, as :func:`index_coordinates` gave it."""
    slides = summary["slides"]
    lines = [
        f"{slides['complete']} of {slides['asked']} slides, {summary['tiles']:,} tiles of {summary['coordinates']} in "
        f"{summary['store']}",
        f"  grid {', '.join(summary['grids']) or 'none'}",
    ]
    for key in ("slides_without_coordinates", "coordinates_without_slide"):
        if summary[key]:
            lines.append(
                f"  {len(summary[key])} {key.replace('_', ' ')}: {some(summary[key], _SHOWN)}"
            )
    said = [f"  {slide}: {note}" for slide, notes in summary["notes"].items() for note in notes]
    failed = [f"  {f['slide_id']} [{f['reason']}] {f['message']}" for f in summary["failures"]]
    for each in (said, failed):
        lines += map(one_line, each[:_SHOWN])
        if len(each) > _SHOWN:
            lines.append(f"  … and {len(each) - _SHOWN} more (--json shows all)")
    return lines
