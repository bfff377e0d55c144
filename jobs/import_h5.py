"""Feature files into a store: slides, grids and features, as if they had been made here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataflow.discover import SlideSource, discover_slides
from dataflow.physical_size import check_given_mpp
from dataflow.receipts import Failure
from jobs.h5_features import H5Features, find_h5, read_h5
from jobs.h5_grid import ImportedGrid, lay_imported
from jobs.h5_own_grid import IMPORTED, OwnGrid, own_grid
from jobs.h5_slide import add_slide, check_inside, record_of_file, record_of_slide
from jobs.run_config import absolute_url
from store_schema import names
from store_schema.errors import (
    DuplicateIdError,
    SettingsConflictError,
    SlidestreamError,
)
from store_schema.ids import check_name, check_slide_id
from store_schema.slide_view import SlideView
from store_schema.specs import ArraySpec, GridSpec, SlideRecord, fingerprint
from store_schema.store import Store, create_store

# Raised when the same file would come to other tiles.
IMPORT_VERSION = 1
DEFAULT_NAME = "imported"
_FOLDER_PREFIX = "features_"  # TRIDENT's folders are called features_<encoder>

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportConfig:
    """One call of ``import h5``.

    Attributes
    ----------
    folder
        Of the files, one a slide; or a single file.
    store
        Where they go; is made if need be.
    features
        Name of the features; None takes the encoder that file or folder names, or ``imported``.
    grid
        Name of the grid; None takes patch size, and magnification or side in µm, or ``imported``.
    slides
        Where the slides' files are, if anywhere.
    slide_mpp
        Size of a level-0 pixel [µm/px], over what slides and files say.
    tile_level0
        Side of a tile [px, level 0] where files don't say.
    block_tiles
        Tiles of a block.
    overwrite
        Replace grids and features of the same name that were made otherwise.
    """

    folder: str
    store: str
    features: str | None = None
    grid: str | None = None
    slides: tuple[str, ...] = ()
    slide_mpp: float | None = None
    tile_level0: int | None = None
    block_tiles: int = names.DEFAULT_BLOCK_TILES
    overwrite: bool = False


@dataclass(frozen=True)
class ImportedSlide:
    """What came of one file."""

    slide_id: str
    grid: str
    features: str
    n_tiles: int
    blocks_written: int
    blocks_before: int
    notes: tuple[str, ...]
    tile_px: int
    mpp: float | None
    beside: bool
    """Whether the grid was there with the same tiles."""

    @property
    def already_there(self) -> bool:
        """Whether there was nothing left to write."""
        return self.blocks_before > 0 and not self.blocks_written

    @property
    def new_beside(self) -> bool:
        """Whether these are other features than the grid was there with; not their own, again."""
        return self.beside and not self.blocks_before


def import_h5(config: ImportConfig) -> dict[str, Any]:
    """Bring feature files into a store; what is there already is not written again.

    Returns
    -------
    dict
        JSON-able summary; ``failures`` lists the files that could not be taken, and why.

    Raises
    ------
    InputError
        If there are no files, or a name or the mpp makes no sense.
    StoreError
        If the store can't be written.
    """
    for name in (config.features, config.grid):
        if name is not None:
            check_name(name)
    if config.slide_mpp is not None:
        check_given_mpp(config.slide_mpp)
    files = find_h5(Path(config.folder))
    sources = _slide_files(config)
    store = create_store(absolute_url(config.store))
    imported: list[ImportedSlide] = []
    failures: list[Failure] = []
    for slide_id, path in _ids(files, failures):
        try:
            imported.append(_import_file(store, config, slide_id, path, sources.get(slide_id)))
        except SlidestreamError as error:
            if error.fatal:
                raise
            failures.append(Failure.of(slide_id, error))
        else:
            _log.info("imported %s: %d tiles", slide_id, imported[-1].n_tiles)
    return {
        "command": "import h5",
        "store": store.url,
        "ok": not failures,
        "slides": {"asked": len(files), "complete": len(imported), "failed": len(failures)},
        "grids": sorted({slide.grid for slide in imported}),
        "features": sorted({slide.features for slide in imported}),
        "tile_px": sorted({slide.tile_px for slide in imported}),
        "mpp": sorted({slide.mpp for slide in imported if slide.mpp is not None}),
        "beside_stored": sum(slide.new_beside for slide in imported),
        "already_there": sum(slide.already_there for slide in imported),
        "without_mpp": sum(slide.mpp is None for slide in imported),
        "tiles": sum(slide.n_tiles for slide in imported),
        "blocks": {
            "done": sum(slide.blocks_written for slide in imported),
            "already_stored": sum(slide.blocks_before for slide in imported),
        },
        "notes": {slide.slide_id: list(slide.notes) for slide in imported if slide.notes},
        "failures": [asdict(failure) for failure in failures],
    }


def _ids(files: list[Path], failures: list[Failure]) -> Iterator[tuple[str, Path]]:
    """Yield files by slide id; two that would share one are failures both."""
    by_id: dict[str, list[Path]] = {}
    for path in files:
        by_id.setdefault(path.stem, []).append(path)
    for slide_id, paths in by_id.items():
        if len(paths) == 1:
            yield slide_id, paths[0]
            continue
        listed = ", ".join(map(str, paths))
        error = DuplicateIdError(f"{listed} would be one slide, {slide_id}; rename one of them")
        failures.append(Failure.of(slide_id, error))


def _slide_files(config: ImportConfig) -> dict[str, SlideSource]:
    if not config.slides:
        return {}
    found = discover_slides(config.slides, mpp=config.slide_mpp)
    return {source.slide_id: source for source in found.sources}


def _import_file(
    store: Store, config: ImportConfig, slide_id: str, path: Path, source: SlideSource | None
) -> ImportedSlide:
    check_slide_id(slide_id)
    file = read_h5(path)
    grid = lay_imported(file, config.tile_level0)
    notes = list(grid.notes)
    if source is not None:
        record = record_of_slide(source)
    else:
        record = record_of_file(store, slide_id, file, grid, config.slide_mpp)
        if config.slides:
            notes.append("its slide was not found; the feature file stands for it")
    check_inside(file, (record.width, record.height) if source else file.size_level0)
    placed = _stored_grid(store, config, slide_id, file, grid, None if source is None else record)
    if placed is None:
        slide = add_slide(store, record, file, known=source is not None, overwrite=config.overwrite)
        spec = _spec(file, grid, slide.record.mpp, config.grid)
        _create_grid(slide, spec, file, grid, config)
        placed = OwnGrid(spec.name, spec.tile_px, spec.mpp, grid.order)
        beside = False
    else:
        slide, beside = store[slide_id], True
        notes = []  # of what had to be inferred of the grid
    name = config.features or _features_name(file)
    blocks = _write_features(slide, placed, name, file, overwrite=config.overwrite)
    return ImportedSlide(
        slide_id,
        placed.name,
        name,
        len(grid.table),
        *blocks,
        tuple(notes),
        placed.tile_px,
        placed.mpp,
        beside,
    )


def _stored_grid(
    store: Store,
    config: ImportConfig,
    slide_id: str,
    file: H5Features,
    grid: ImportedGrid,
    record: SlideRecord | None,
) -> OwnGrid | None:
    """Return the grid of the store that the file's tiles are of, unless what is said of the slide speaks against it.

    ``record`` is that of the slide's own file; where there is none, its id and size and the corners must do.
    """
    if slide_id not in store:
        return None
    slide = store[slide_id]
    known = slide.record
    if record is not None:
        same = (record.fingerprint, record.width, record.height, record.mpp) == (
            known.fingerprint, known.width, known.height, known.mpp,
        )  # fmt: skip
    else:
        same = file.size_level0 in (None, (known.width, known.height)) and config.slide_mpp in (
            None,
            known.mpp,
        )
    return own_grid(slide, file, grid, config.grid) if same else None


def _spec(
    file: H5Features, grid: ImportedGrid, slide_mpp: float | None, name: str | None
) -> GridSpec:
    geometry, tile_px = grid.geometry, grid.tile_px
    scale = geometry.tile_level0 / tile_px
    target = file.number("target_magnification")
    mpp = None if slide_mpp is None else slide_mpp * scale
    if slide_mpp == file.level0_mpp:  # tiles are whole level-0 pixels, so that the scale is rounded
        mpp = file.number("target_mpp") or mpp
    # not as our own grids are named: `run` may make one of the same size and mpp in this store
    default = DEFAULT_NAME if mpp is None else f"{tile_px}px_{tile_px * mpp:.0f}um"
    if target is not None:  # the same for all slides, whatever a scanner's 20x is
        default = f"{tile_px}px_{target:g}x"
    default = file.grid or default
    return GridSpec(
        tile_px=tile_px,
        mpp=mpp,
        stride_px=max(1, round(geometry.stride_level0 / scale)),
        edge="pad",  # tools differ in it
        tissue={"method": DEFAULT_NAME},
        label=name or default,
    )


def _create_grid(
    slide: SlideView, spec: GridSpec, file: H5Features, grid: ImportedGrid, config: ImportConfig
) -> None:
    table, record = grid.table, slide.record
    there = slide.grid_attrs(spec.name) if spec.name in slide.grids else None
    if there is not None and IMPORTED not in there[names.PROVENANCE] and not config.overwrite:
        raise SettingsConflictError(
            f"the grid {spec.name} is there with other tiles than {file.path} has: give these a grid of their own with "
            "--grid-name"
        )
    slide.create_grid(
        spec,
        grid.geometry,
        table,
        {
            "slide": record.fingerprint,
            "slide_mpp": record.mpp,
            "grid": spec.to_json(),
            "block_tiles": config.block_tiles,
            "import_version": IMPORT_VERSION,
            IMPORTED: {
                "format": "h5",
                # of the tiles in stored order: files of several encoders may list them differently
                "corners": fingerprint({"x": table.x.tolist(), "y": table.y.tolist()}),
                "tile_level0": grid.geometry.tile_level0,
                "attributes": dict(file.coords_attrs),
            },
        },
        counts={
            "tiles": len(table),
            "lattice": grid.geometry.n_rows * grid.geometry.n_cols,
        },
        block_tiles=config.block_tiles,
        overwrite=config.overwrite,
    )


def _features_name(file: H5Features) -> str:
    encoder = file.features_attrs.get("encoder")
    if isinstance(encoder, str) and encoder not in ("", "None"):
        return encoder
    folder = file.path.absolute().parent.name
    return (
        folder.removeprefix(_FOLDER_PREFIX) if folder.startswith(_FOLDER_PREFIX) else DEFAULT_NAME
    )


def _write_features(
    slide: SlideView,
    grid: OwnGrid,
    name: str,
    file: H5Features,
    *,
    overwrite: bool,
) -> tuple[int, int]:
    """Write the blocks that are missing; return how many that were, and how many there were before."""
    features = file.features
    attrs = {"long_name": f"features of {name}", "units": "1"}
    spec = ArraySpec(
        (names.TILE, names.FEATURE), features.shape[1:], np.dtype(features.dtype).name, attrs
    )
    provenance = {
        "slide": slide.record.fingerprint,
        names.GRID_MADE_BY: slide.grid_attrs(grid.name)[names.FINGERPRINT],
        "import_version": IMPORT_VERSION,
        IMPORTED: {
            "format": "h5",
            "content": file.digest,
            "attributes": dict(file.features_attrs),
        },
    }
    try:
        group = slide.create_tile_group(
            grid.name,
            names.FEATURES,
            name,
            {names.FEATURES: spec},
            provenance,
            extra={"file": file.path.name},
            overwrite=overwrite,
        )
    except SettingsConflictError as error:
        raise SettingsConflictError(
            f"the grid {grid.name} has other features {name}: give them another name with --features, or pass "
            "--overwrite to replace those that are there"
        ) from error
    missing = group.missing_blocks()
    for block in missing:
        rows = grid.order[group.block_slice(block)]
        group.write_block(block, {names.FEATURES: features[rows]})
    return len(missing), group.n_blocks - len(missing)
