"""What a run would do and store, found out without writing anything."""

from __future__ import annotations

import json
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import track

from dataflow.block_task import output_arrays
from dataflow.discover import SlideSource
from dataflow.index import lay_grid
from dataflow.receipts import Failure
from dataflow.slide import open_slide
from dataflow.slide_digest import slide_digest
from dataflow.stream_spec import EncodeSpec, IndexSpec, StreamSpec
from jobs.machine_checks import existing_folder
from jobs.one_line import one_line
from jobs.prepare import prepare
from jobs.run_config import RunConfig
from jobs.tables import new_table, show
from store_schema import names
from store_schema.errors import SlideChangedError, SlidestreamError
from store_schema.layout import GRID_ARRAYS, ArrayLayout, grid_array, tile_array
from store_schema.store import open_store

_CRC32C_BYTES = 4


@dataclass(frozen=True)
class PlannedSlide:
    """What a run would make of one slide.

    Attributes
    ----------
    slide_id
        Its name in the store.
    tiles, blocks
        Of its grid.
    bytes_at_most
        Of everything but metadata; what compresses (coordinates, flags, masks) counts in full.
    notes
        Things to say about the slide.
    """

    slide_id: str
    tiles: int
    blocks: int
    bytes_at_most: int
    notes: tuple[str, ...] = ()


def dry_run(config: RunConfig, *, as_json: bool) -> int:
    """Find tissue and lay tiles on every slide (or look up its grid), and print what a run would store.

    Parameters
    ----------
    config
        A call of run, index, encode, or of another command that streams.
    as_json
        Print one JSON object instead of text.

    Returns
    -------
    int
        Exit code: 1 when a slide would fail.

    Raises
    ------
    SlidestreamError
        Nothing could be started.
    """
    prepared = prepare(config)
    spec = prepared.spec
    planned, failed = _plan_all(prepared.sources, spec)
    failures = [*prepared.refused, *failed]
    found = _found(config, spec)
    found |= {
        "totals": {
            "slides": len(planned),
            "tiles": sum(slide.tiles for slide in planned),
            "blocks": sum(slide.blocks for slide in planned),
            "bytes_at_most": sum(slide.bytes_at_most for slide in planned),
        },
        "slides": [asdict(slide) for slide in planned],
        "failures": [asdict(failure) for failure in failures],
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        show(*_text(found, planned, failures))
    return 1 if failures else 0


def _found(config: RunConfig, spec: StreamSpec) -> dict[str, Any]:
    url, encode = config.store_url, spec.encode
    free = None if "://" in url else shutil.disk_usage(existing_folder(Path(url))).free
    return {
        "dry_run": True,
        "store": config.store,
        "grid": spec.grid_name,
        **({} if encode is None else {encode.kind: encode.name}),
        "free_bytes": free,
    }


def _plan_all(
    sources: list[SlideSource], spec: StreamSpec
) -> tuple[list[PlannedSlide], list[Failure]]:
    planned: list[PlannedSlide] = []
    failed: list[Failure] = []
    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(lambda source: _plan(source, spec), sources)
        for outcome in track(
            outcomes,
            "laying grids",
            len(sources),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ):
            if isinstance(outcome, Failure):
                failed.append(outcome)
            else:
                planned.append(outcome)
    return planned, failed


def _plan(source: SlideSource, spec: StreamSpec) -> PlannedSlide | Failure:
    try:
        if spec.index is not None:
            return _plan_index(source, spec.index, spec.encode)
        if spec.encode is not None:
            return _plan_encode(source, spec, spec.encode)
    except SlidestreamError as error:
        return Failure.of(source.slide_id, error)
    raise ValueError("a run indexes, encodes, or both")


def _plan_index(source: SlideSource, index: IndexSpec, encode: EncodeSpec | None) -> PlannedSlide:
    reader = open_slide(source.path, source.mpp)
    try:
        tissue, _, table = lay_grid(reader, index)
    finally:
        reader.close()
    n_tiles = len(table)
    layouts = [grid_array(name, n_tiles) for name in GRID_ARRAYS]
    if encode is not None:
        arrays = output_arrays(encode).values()
        layouts += [tile_array(spec, n_tiles, index.block_tiles) for spec in arrays]
    notes = [reader.info.mpp_note] if reader.info.mpp_note else []
    if not n_tiles:
        notes.append("no tissue: the grid is empty")
    return PlannedSlide(
        source.slide_id,
        n_tiles,
        -(-n_tiles // index.block_tiles),
        tissue.mask.nbytes + sum(map(_stored_bytes, layouts)),
        tuple(notes),
    )


def _plan_encode(source: SlideSource, spec: StreamSpec, encode: EncodeSpec) -> PlannedSlide:
    slide = open_store(spec.store_url)[source.slide_id]
    open_slide(source.path, source.mpp).close()
    if slide_digest(source.path) != slide.record.fingerprint:
        raise SlideChangedError(
            f"{source.path}: the file is not the one that slide {source.slide_id!r} was indexed from; restore it, "
            "or index it under another slide id"
        )
    attrs = slide.grid_attrs(spec.grid_name)
    n_tiles, block_tiles = int(attrs[names.N_TILES]), int(attrs[names.BLOCK_TILES])
    arrays = output_arrays(encode).values()
    layouts = [tile_array(array, n_tiles, block_tiles) for array in arrays]
    done = 0
    if encode.name in slide.runs(spec.grid_name, encode.kind):
        done, _ = slide.block_group(spec.grid_name, encode.kind, encode.name).done()
    return PlannedSlide(
        source.slide_id,
        n_tiles,
        -(-n_tiles // block_tiles) if n_tiles else 0,
        sum(map(_stored_bytes, layouts)),
        (f"{done} blocks are stored already",) if done else (),
    )


def _stored_bytes(layout: ArrayLayout) -> int:
    return math.prod(layout.grid) * (layout.raw_bytes + _CRC32C_BYTES)  # edge chunks are padded


def _text(
    found: dict[str, Any], planned: list[PlannedSlide], failures: list[Failure]
) -> list[RenderableType]:
    numbers = ("tiles", "blocks", "stored [MB]")
    table = new_table("slide", *numbers, right=numbers)
    for slide in planned:
        table.add_row(
            escape(slide.slide_id),
            f"{slide.tiles:,}",
            f"{slide.blocks:,}",
            _mb(slide.bytes_at_most),
        )
    totals = found["totals"]
    table.add_section()
    table.add_row(
        f"[bold]{totals['slides']:,} in all[/]",
        f"[bold]{totals['tiles']:,}[/]",
        f"[bold]{totals['blocks']:,}[/]",
        f"[bold]{_mb(totals['bytes_at_most'])}[/]",
    )
    lines: list[RenderableType] = [table]
    lines += [
        f"note     {escape(one_line(slide.slide_id))}: {escape(one_line(note))}"
        for slide in planned
        for note in slide.notes
    ]
    lines += [
        f"[bold red]failed[/]   {escape(one_line(failure.slide_id))} {escape(f'[{failure.reason}]')}: "
        f"{escape(one_line(failure.message))}"
        for failure in failures
    ]
    groups = [f"{kind}/{found[kind]}" for kind in (names.FEATURES, names.SCORES) if kind in found]
    what = ", ".join([found["grid"], *groups])
    lines.append(f"grid     {escape(what)}")
    if found["free_bytes"] is not None:
        fits = found["free_bytes"] > totals["bytes_at_most"]
        verdict = "" if fits else "  [bold red]too little: free some, or choose another --store[/]"
        lines.append(f"disk     {found['free_bytes'] / 1e9:,.1f} GB free{verdict}")
    lines.append(
        "Nothing was written. Sizes are upper bounds: coordinates, flags and masks compress."
    )
    return lines


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f}"
