"""The slide that a feature file belongs to: by its own file, or by what the features tell of it."""

from __future__ import annotations

from dataclasses import replace

from dataflow.discover import SlideSource
from dataflow.physical_size import OBJECTIVE_TIMES_MPP, PLAUSIBLE_MPP
from jobs.h5_features import H5Features
from jobs.h5_grid import ImportedGrid
from store_schema.errors import SlideChangedError, UnreadableSlideError
from store_schema.slide_view import SlideView
from store_schema.specs import SlideRecord, fingerprint
from store_schema.store import Store

_LEAST_MPP, _MOST_MPP = PLAUSIBLE_MPP


def add_slide(
    store: Store, record: SlideRecord, file: H5Features, *, known: bool, overwrite: bool
) -> SlideView:
    """Add the slide of a file, or find it in the store.

    Parameters
    ----------
    store, record, file
        Where to, and what is known of the slide.
    known
        Whether the record is that of the slide's own file.
    overwrite
        As of ``Store.add_slide``.

    Raises
    ------
    SlideChangedError
        The store has another slide under that id, or may have.
    """
    try:
        return store.add_slide(record, overwrite=overwrite)
    except SlideChangedError as error:
        if known:
            raise
        grids = store[record.slide_id].grids
        raise SlideChangedError(
            f"{file.path} has other tiles than the grid{'s' * (len(grids) != 1)} that {store.url} has of this slide "
            f"({', '.join(grids) or 'none'}): give --slides with the slide's file, which shows that it is the same "
            "slide, and --grid-name for a grid of these tiles, or use another store"
        ) from error


def check_inside(file: H5Features, size_level0: tuple[int, int] | None) -> None:
    """Raise UnreadableSlideError if a tile begins where the slide has ended: it belongs to another slide or level."""
    furthest = tuple(file.coords.max(axis=0).tolist())
    if size_level0 is not None and any(
        at >= side for at, side in zip(furthest, size_level0, strict=True)
    ):
        raise UnreadableSlideError(
            f"{file.path}: its tiles go up to x {furthest[0]}, y {furthest[1]}, and the slide has {size_level0[0]} x "
            f"{size_level0[1]} px; coords must be those of this slide, in level-0 pixels"
        )


def record_of_slide(source: SlideSource) -> SlideRecord:
    """Return what the slide's own file says; reads it."""
    # loads torch, which features without slides don't need
    from dataflow.index import slide_record
    from dataflow.slide import open_slide
    from dataflow.slide_digest import slide_digest

    reader = open_slide(source.path, source.mpp)
    try:
        return slide_record(source.slide_id, source.path, reader.info, slide_digest(source.path))
    finally:
        reader.close()


def record_of_file(
    store: Store, slide_id: str, file: H5Features, grid: ImportedGrid, slide_mpp: float | None
) -> SlideRecord:
    """Return what a feature file tells of its slide, completed by what the store knows of it.

    The content of the slide is not known, only its name: files of several encoders are of one slide.
    """
    side = grid.geometry.tile_level0
    extent = (int(grid.table.x.max()) + side, int(grid.table.y.max()) + side)
    width, height = file.size_level0 or extent
    power = file.number("level0_magnification")
    if power is not None and not _LEAST_MPP <= OBJECTIVE_TIMES_MPP / power <= _MOST_MPP:
        power = None
    mpp, mpp_source = slide_mpp, "user"
    if mpp is None and (said := file.level0_mpp) is not None and _LEAST_MPP <= said <= _MOST_MPP:
        mpp, mpp_source = said, "properties"
    if mpp is None and power is not None:
        mpp, mpp_source = OBJECTIVE_TIMES_MPP / power, "objective"
    record = SlideRecord(
        slide_id=slide_id,
        source=str(file.path.absolute()),
        fingerprint=fingerprint({"slide_id": slide_id}),
        vendor="h5",
        width=width,
        height=height,
        mpp=mpp,
        mpp_source="unknown" if mpp is None else mpp_source,
        objective_power=power,
    )
    known = store[slide_id].record if slide_id in store else None
    if known is None or known.fingerprint != record.fingerprint:
        return record
    if file.size_level0 is None:
        record = replace(record, width=known.width, height=known.height)
    return (
        record if mpp is not None else replace(record, mpp=known.mpp, mpp_source=known.mpp_source)
    )
