"""One slide → a grid in the store: open, find tissue, lay tiles, write, draw the QC picture."""

from __future__ import annotations

from pathlib import Path

from dataflow.declared_size import check_declared_size
from dataflow.discover import SlideSource
from dataflow.physical_size import require_mpp
from dataflow.qc import save_qc_picture
from dataflow.slide import SlideInfo, SlideReader, open_slide
from dataflow.slide_digest import slide_digest
from dataflow.stream_spec import IndexSpec
from dataflow.tiling import make_tiles
from dataflow.tissue import TissueMask, mask_digest, tissue_mask
from store_schema import names
from store_schema.slide_view import SlideView
from store_schema.specs import GridGeometry, RasterSpec, SlideRecord, TileTable, fingerprint
from store_schema.store import Store

# Raised when the tiling or the tissue detection changes for the same settings.
INDEX_VERSION = 1


def index_slide(
    store: Store, spec: IndexSpec, source: SlideSource, *, verify: bool = True
) -> tuple[SlideView, list[str]]:
    """Write a slide's grid to the store, unless it is there already; what is damaged of it is made anew.

    Parameters
    ----------
    store
        Opened for writing.
    spec
        What grid is asked for.
    source
        The slide.
    verify
        Whether coordinates and masks are read and their checksums checked before the grid counts as there.

    Returns
    -------
    SlideView, list of str
        The slide in the store, and things to say about it.

    Raises
    ------
    SlideError
        The slide can't be opened or read, or has no usable mpp.
    SettingsConflictError
        The store holds this slide id or grid, made of something else.
    DamagedMetadataError
        A document of the slide or grid is damaged, and only ``overwrite`` may replace it.
    """
    reader = open_slide(source.path, source.mpp)
    try:
        return _index(store, spec, source, reader, verify)
    finally:
        reader.close()


def lay_grid(reader: SlideReader, spec: IndexSpec) -> tuple[TissueMask, GridGeometry, TileTable]:
    """Find a slide's tissue and lay the tiles on it; writes nothing.

    Parameters
    ----------
    reader
        The opened slide.
    spec
        What grid is asked for.

    Raises
    ------
    SlideError
        The slide has no usable mpp, is coarser than what is asked for, declares far more pixels than its file can
        hold, or can't be read.
    """
    require_mpp(reader.info)  # before any pixel is read
    check_declared_size(reader.info)
    tissue = tissue_mask(reader, spec.tissue)
    geometry, table = make_tiles(reader.info, spec.grid, tissue)
    return tissue, geometry, table


def _index(
    store: Store, spec: IndexSpec, source: SlideSource, reader: SlideReader, verify: bool
) -> tuple[SlideView, list[str]]:
    info = reader.info
    mpp = require_mpp(info)
    digest = slide_digest(source.path)
    record = slide_record(source.slide_id, source.path, info, digest)
    if store.has_traces(source.slide_id):
        # says so before any work when it is another file or mpp; makes the slide's document anew if that was lost
        store.add_slide(record, overwrite=spec.overwrite)
    provenance: dict[str, object] = {
        "slide": digest,
        "slide_mpp": mpp,
        "grid": spec.grid.to_json(),
        "block_tiles": spec.block_tiles,
        "index_version": INDEX_VERSION,
    }
    if (mask := mask_digest(spec.tissue, source.path)) is not None:
        provenance["tissue_mask"] = mask
    notes = [info.mpp_note] if info.mpp_note else []
    picture = None if spec.qc_dir is None else Path(spec.qc_dir) / f"{source.slide_id}.png"
    slide = SlideView(store.objects, source.slide_id)
    if _is_indexed(slide, spec.grid.name, provenance, verify) and (
        picture is None or picture.exists()
    ):
        return slide, notes
    tissue, geometry, table = lay_grid(reader, spec)
    if len(table) == 0:
        notes.append("no tissue: the grid is empty")
    slide = store.add_slide(record)  # only now: a slide that can't be read leaves nothing behind
    slide.create_grid(
        spec.grid,
        geometry,
        table,
        provenance,
        counts={"tiles": len(table), "lattice": geometry.n_rows * geometry.n_cols},
        rasters={
            names.TISSUE_RUN: (
                RasterSpec(
                    dims=(names.Y, names.X),
                    shape=tissue.mask.shape,
                    dtype="uint8",
                    px_level0=tissue.px_level0,
                    attrs={
                        "long_name": "tissue",
                        "flag_values": [0, 1],
                        "flag_meanings": "background tissue",
                    },
                ),
                tissue.mask,
            )
        },
        block_tiles=spec.block_tiles,
        overwrite=spec.overwrite,
    )
    if picture is not None:
        save_qc_picture(picture, source.slide_id, tissue, geometry, table, mpp)
    return slide, notes


def _is_indexed(slide: SlideView, grid: str, provenance: dict[str, object], verify: bool) -> bool:
    there = slide.grid_sound(grid) if verify else slide.grid_complete(grid)
    return there and slide.grid_attrs(grid)[names.FINGERPRINT] == fingerprint(provenance)


def slide_record(slide_id: str, path: str, info: SlideInfo, digest: str) -> SlideRecord:
    """Return what the store is to keep of an opened slide; ``digest`` is its :func:`slide_digest`."""
    return SlideRecord(
        slide_id=slide_id,
        source=str(path),
        fingerprint=digest,
        vendor=info.vendor,
        width=info.width,
        height=info.height,
        mpp=info.mpp,
        mpp_source=info.mpp_source,
        objective_power=info.objective_power,
    )
