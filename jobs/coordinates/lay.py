"""Grids of coordinates that other tools chose: which lattice they lie on, how large their tiles are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dataflow.discover import SlideSource
from dataflow.index import slide_record
from dataflow.physical_size import require_mpp
from dataflow.receipts import Failure
from dataflow.slide import SlideInfo, open_slide
from dataflow.slide_digest import slide_digest
from jobs.coordinates.files import CoordinateFolder, SlideCoordinates
from jobs.h5_grid import lay_corners, neighbour_distance
from store_schema import names
from store_schema.errors import InputError, SlidestreamError, UnreadableSlideError
from store_schema.specs import GridSpec, fingerprint
from store_schema.store import Store

# Raised when the same file would come to other tiles.
LAY_VERSION: Final = 1
FORMAT: Final = "coordinates"
_NEAR_MPP: Final = 0.1
"""Tools take a level as it is where it is this near to what was asked for, as a fraction."""


@dataclass(frozen=True)
class LaySpec:
    """What files of coordinates don't say.

    Attributes
    ----------
    tile_px
        Side of a tile [px]; None takes that of the files.
    mpp
        Pixel size [µm/px] of files that say neither it nor what tiles cover.
    grid_name
        Name of the grid; None names it by size and pixel size.
    block_tiles
        Tiles of a block.
    overwrite
        Replace a grid of that name that was made otherwise.
    """

    tile_px: int | None = None
    mpp: float | None = None
    grid_name: str | None = None
    block_tiles: int = names.DEFAULT_BLOCK_TILES
    overwrite: bool = False


@dataclass(frozen=True)
class LaidSlide:
    """What came of one slide."""

    slide_id: str
    grid: str
    n_tiles: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LaidGrids:
    """What came of a folder of coordinates.

    Attributes
    ----------
    slides
        Those that have a grid of them now.
    failures
        Those that could not be had, and files that make no sense.
    without_slide
        Names that have coordinates, and no slide.
    without_coordinates
        Slides that have none.
    """

    slides: tuple[LaidSlide, ...]
    failures: tuple[Failure, ...]
    without_slide: tuple[str, ...]
    without_coordinates: tuple[str, ...]

    @property
    def grids(self) -> tuple[str, ...]:
        """Names of the grids, sorted."""
        return tuple(sorted({slide.grid for slide in self.slides}))


def lay_coordinates(
    store: Store, folder: CoordinateFolder, sources: list[SlideSource], spec: LaySpec
) -> LaidGrids:
    """Make grids of coordinates; the same again is a no-op.

    Parameters
    ----------
    store
        Opened for writing.
    folder
        The coordinates.
    sources
        The slides; one without coordinates, or that fails, does not stop the others.
    spec
        What the files don't say.
    """
    named = {source.slide_id: folder.name_of(source.slide_id) for source in sources}
    laid, failures = [], list(folder.failures)
    for source in sources:
        name = named[source.slide_id]
        if name is None:
            continue
        try:
            laid.append(lay_slide(store, source, folder.slides[name], spec))
        except SlidestreamError as error:
            if error.fatal:
                raise
            failures.append(Failure.of(source.slide_id, error))
    return LaidGrids(
        tuple(laid),
        tuple(failures),
        tuple(sorted(set(folder.slides) - set(named.values()))),
        tuple(slide_id for slide_id, name in named.items() if name is None),
    )


def lay_slide(
    store: Store, source: SlideSource, coordinates: SlideCoordinates, spec: LaySpec
) -> LaidSlide:
    """Make a grid of one slide's coordinates.

    Raises
    ------
    SlideError
        The slide can't be opened, has no usable mpp, or is not the one that the coordinates are of.
    InputError
        Nothing says how large tiles are, or file and options contradict.
    SettingsConflictError
        The store has this slide id or grid, made of something else.
    """
    reader = open_slide(source.path, source.mpp)
    try:
        info = reader.info
    finally:
        reader.close()
    slide_mpp = require_mpp(info)
    _check_inside(coordinates, info)
    tile_px = _tile_px(coordinates, spec)
    side = _side_level0(coordinates, spec, info, tile_px, slide_mpp)
    exact = slide_mpp * side / tile_px
    mpp = _nominal_mpp(coordinates, spec, exact)
    stride = min(neighbour_distance(coordinates.corners) or float(side), float(side))
    laid = lay_corners(coordinates.path, coordinates.corners, side, stride)
    grid = GridSpec(
        tile_px=tile_px,
        mpp=mpp,
        stride_px=max(1, round(stride * tile_px / side)),
        edge="pad",  # tools differ in it
        tissue={"method": FORMAT},
        # not as our own grids are named: `index` may make one of the same size and mpp in this store
        label=spec.grid_name or f"{tile_px}px_{mpp:.3f}mpp_{FORMAT}",
    )
    slide = store.add_slide(
        slide_record(source.slide_id, source.path, info, slide_digest(source.path))
    )
    table = laid.table
    provenance = {
        "slide": slide.record.fingerprint,
        "slide_mpp": slide_mpp,
        "grid": grid.to_json(),
        "block_tiles": spec.block_tiles,
        "lay_version": LAY_VERSION,
        "imported": {
            "format": FORMAT,
            "corners": fingerprint({"x": table.x.tolist(), "y": table.y.tolist()}),
            "tile_level0": side,
        },
    }
    slide.create_grid(
        grid,
        laid.geometry,
        table,
        provenance,
        counts={
            "tiles": len(table),
            "lattice": laid.geometry.n_rows * laid.geometry.n_cols,
        },
        block_tiles=spec.block_tiles,
        overwrite=spec.overwrite,
    )
    notes = list(laid.notes)
    if info.mpp_note:
        notes.append(info.mpp_note)
    if coordinates.repeated:
        notes.append(f"{coordinates.repeated} rows of {coordinates.path.name} repeat another")
    return LaidSlide(source.slide_id, grid.name, len(table), tuple(notes))


def _check_inside(coordinates: SlideCoordinates, info: SlideInfo) -> None:
    """Raise UnreadableSlideError if a tile begins outside of the slide: it belongs to another slide, or level."""
    least, most = coordinates.corners.min(axis=0), coordinates.corners.max(axis=0)
    if least.min() < 0 or most[0] >= info.width or most[1] >= info.height:
        raise UnreadableSlideError(
            f"{coordinates.path}: its tiles go from ({least[0]}, {least[1]}) to ({most[0]}, {most[1]}), and the slide "
            f"{info.path} has {info.width} x {info.height} px: coordinates must be those of this slide, in level-0 "
            "pixels"
        )


def _tile_px(coordinates: SlideCoordinates, spec: LaySpec) -> int:
    said, asked = coordinates.tile_px, spec.tile_px
    if said is None and asked is None:
        raise InputError(
            f"{coordinates.path} doesn't say how large its tiles are: give --tile-px and --mpp"
        )
    if said is not None and asked is not None and said != asked:
        raise InputError(
            f"{coordinates.path} has tiles of {said} px, and --tile-px asks for {asked}: leave --tile-px out"
        )
    return said or asked or 0


def _side_level0(
    coordinates: SlideCoordinates, spec: LaySpec, info: SlideInfo, tile_px: int, slide_mpp: float
) -> int:
    """Return the side of the square that a tile covers [px, level 0]."""
    if coordinates.read_at is not None and coordinates.read_at[0] >= len(info.levels):
        raise UnreadableSlideError(
            f"{coordinates.path}: its tiles are of level {coordinates.read_at[0]}, and the slide {info.path} has "
            f"{len(info.levels)} levels: coordinates must be those of this slide"
        )
    if coordinates.tile_level0 is not None:
        return coordinates.tile_level0
    if coordinates.read_at is not None:
        level, side = coordinates.read_at
        return max(1, round(side * info.levels[level].downsample))
    mpp = coordinates.mpp or spec.mpp
    if mpp is None:
        raise InputError(
            f"{coordinates.path} doesn't say how much its tiles cover: give --mpp, or tile_size_lv0 in the file"
        )
    return max(1, round(tile_px * mpp / slide_mpp))


def _nominal_mpp(coordinates: SlideCoordinates, spec: LaySpec, exact: float) -> float:
    """Return the pixel size that the tiles were asked for at: the same for slides of several scanners."""
    said = coordinates.mpp
    if said is not None:
        if abs(exact / said - 1) > _NEAR_MPP:
            raise UnreadableSlideError(
                f"{coordinates.path}: its tiles are said to have {said:g} µm/px, and on this slide they have "
                f"{exact:.4g}: the coordinates are of another slide, or its pixel size is wrong (--slide-mpp)"
            )
        return said
    if spec.mpp is not None and abs(exact / spec.mpp - 1) <= _NEAR_MPP:
        return spec.mpp
    return round(exact, 4)
