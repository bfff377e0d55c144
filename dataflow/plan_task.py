"""One slide made ready: indexed, its group claimed, its missing blocks listed; the body of a Dask task."""

from __future__ import annotations

import time
from dataclasses import replace

from dataflow.block_task import output_arrays
from dataflow.discover import SlideSource
from dataflow.group_conflict import MODEL, STAIN, VERSION, conflict
from dataflow.index import index_slide
from dataflow.receipts import Failure, SlidePlan
from dataflow.slide_digest import slide_digest
from dataflow.slide_stain import fit_stored_slide
from dataflow.stain import StainMethod
from dataflow.stream_spec import EncodeSpec, StreamSpec
from store_schema import names
from store_schema.blocks import BlockGroup
from store_schema.errors import SettingsConflictError, SlideChangedError, SlidestreamError
from store_schema.predictions import MODEL_SPLIT
from store_schema.slide_view import SlideView
from store_schema.specs import fingerprint
from store_schema.store import open_store

# Raised when the stream's numbers change for the same settings: blocks of both must not mix in one array.
STREAM_VERSION = 3


def plan_slide(spec: StreamSpec, source: SlideSource) -> SlidePlan:
    """Index a slide and claim the group that its blocks go to.

    Parameters
    ----------
    spec
        The run.
    source
        The slide.

    Returns
    -------
    SlidePlan
        With a failure instead of blocks when the slide can't be processed.
    """
    start = time.perf_counter()
    try:
        plan = _plan(spec, source)
    except SlidestreamError as error:
        plan = SlidePlan(source.slide_id, failure=Failure.of(source.slide_id, error))
    return replace(plan, seconds=time.perf_counter() - start)


def _plan(spec: StreamSpec, source: SlideSource) -> SlidePlan:
    store = open_store(spec.store_url, mode="r+")
    notes: list[str] = []
    if spec.index is not None:
        verify = spec.encode is None or spec.encode.verify
        slide, notes = index_slide(store, spec.index, source, verify=verify)
    else:
        slide = store[source.slide_id]
        if slide.record.fingerprint != slide_digest(source.path):
            raise SlideChangedError(
                f"The file of slide {source.slide_id!r} ({source.path}) is not the one that the store was made from; "
                "restore it, or index it under another slide id."
            )
    attrs = slide.grid_attrs(spec.grid_name)
    n_tiles = int(attrs[names.N_TILES])
    if spec.encode is None:
        return SlidePlan(source.slide_id, n_tiles=n_tiles, notes=tuple(notes))
    group, encode_notes = _claim(slide, spec.grid_name, spec.encode, source)
    return SlidePlan(
        source.slide_id,
        n_tiles=n_tiles,
        n_blocks=group.n_blocks,
        missing=tuple(group.missing_blocks(verify=spec.encode.verify)),
        stamp=fingerprint(
            {
                "slide": slide.record.fingerprint,
                "grid": attrs[names.FINGERPRINT],
                "group": group.attrs[names.FINGERPRINT],
                "path": group.path,  # two names may hold the same, and are still two groups
            }
        ),
        notes=(*notes, *encode_notes),
    )


def _claim(
    slide: SlideView, grid_name: str, encode: EncodeSpec, source: SlideSource
) -> tuple[BlockGroup, list[str]]:
    provenance = {
        "slide": slide.record.fingerprint,
        "grid": slide.grid_attrs(grid_name)[names.FINGERPRINT],
        STAIN: encode.stain.provenance,
        MODEL: dict(encode.model.provenance),
        VERSION: STREAM_VERSION,
    }
    extra: dict[str, object] = {}
    notes: list[str] = []
    if encode.model_slides is not None:
        extra[MODEL_SPLIT] = encode.model_slides.split_of(slide.slide_id)
    if encode.stain.needs_basis:
        basis = fit_stored_slide(slide, grid_name, encode.stain, source)
        extra[names.STAIN_BASIS] = basis.to_json()
        if basis.method is not encode.stain.wanted_method:
            notes.append(
                f"the slide's {encode.stain.method} fit failed ({basis.reason}); "
                f"{StainMethod(basis.method).name.lower()} was used"
            )
    try:
        group = slide.create_tile_group(
            grid_name,
            encode.kind,
            encode.name,
            output_arrays(encode),
            provenance,
            extra=extra,
            overwrite=encode.overwrite,
        )
    except SettingsConflictError as error:
        if encode.name not in slide.runs(grid_name, encode.kind):
            raise  # an altered document, of another kind: it has no settings to tell
        stored = slide.run_attrs(grid_name, encode.kind, encode.name)
        said = conflict(f"{encode.kind}/{encode.name}", stored, provenance)
        raise SettingsConflictError(said) from error
    return group, notes
