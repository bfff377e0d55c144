"""Stitched arrays in the store: ``masks/<name>`` of a slide, painted and written chunk by chunk by Dask."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from dask.base import compute as dask_compute
from dask.delayed import Delayed, delayed

from dataflow.stitch import Stitched
from dataflow.stitch_combine import Floats
from dataflow.stitch_conflict import PX_LEVEL0, SOURCE, VERSION, conflict
from dataflow.stitch_spec import GAUSSIAN_SIGMA, StitchRaster
from store_schema import names
from store_schema.errors import InputError, SettingsConflictError
from store_schema.raster_group import RasterGroup
from store_schema.slide_view import SlideView
from store_schema.specs import RasterSpec

# Raised when the same settings lead to other numbers: chunks of both must not mix in one array.
STITCH_VERSION: Final = 1

_MOST_THREADS: Final = 8  # what is in flight is what takes memory
_BATCH: Final = (
    64  # chunks that are handed to Dask at one time, so that the graph doesn't grow with the slide
)
_MOST_CLASSES: Final = 255  # of a uint8 mask, 0 being nothing

Compute = Callable[[Sequence[Delayed]], Sequence[int]]


@dataclass(frozen=True)
class StitchJob:
    """What a task needs to paint and write any chunk of a slide; picklable."""

    stitched: Stitched
    group: RasterGroup
    array: str


@dataclass(frozen=True)
class StitchResult:
    """What came of a slide.

    Attributes
    ----------
    slide_id, grid, raster
        What was stitched, and onto which pixels.
    n_chunks
        Chunks that tiles reach into.
    n_painted
        Of these, how many were painted now; the others were there.
    n_bytes
        Bytes written.
    seconds
        It took.
    """

    slide_id: str
    grid: str
    raster: StitchRaster
    n_chunks: int
    n_painted: int
    n_bytes: int
    seconds: float


def in_threads(tasks: Sequence[Delayed]) -> Sequence[int]:
    """Compute tasks with Dask in threads of this process."""
    n_threads = min(_MOST_THREADS, os.cpu_count() or 1)
    done: Sequence[int] = dask_compute(*tasks, scheduler="threads", num_workers=n_threads)
    return done


def stitch_slide(
    slide: SlideView,
    stitched: Stitched,
    name: str,
    *,
    overwrite: bool = False,
    verify: bool = True,
    compute: Compute = in_threads,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> StitchResult:
    """Write a stitched array into the store; the same again is a no-op, what is missing or damaged is made anew.

    Parameters
    ----------
    slide, stitched
        The slide and what is stitched on it.
    name
        Of the group, ``masks/<name>``. It holds the array under its own name or, with ``argmax``, as ``confidence``
        (class, y, x), and ``mask`` (y, x): 0 where there is nothing, else 1 + the greatest class.
    overwrite
        Replace a group of other settings.
    verify
        Check what is there.
    compute
        Computes Dask tasks: in threads, or on a cluster. Memory is that of the tasks in flight.
    progress
        Is told how many chunks are painted, of how many.

    Raises
    ------
    SettingsConflictError
        If the group was made otherwise; names the options that differ.
    DamagedBlockError
        If a block of the source is damaged.
    """
    started = time.perf_counter()
    source, spec = stitched.source, stitched.spec
    array = names.CONFIDENCE if spec.argmax else source.array
    arrays = {array: stitched.raster_spec}
    if spec.argmax:
        arrays[names.MASK] = _mask_spec(stitched)
    provenance = _provenance(slide, stitched)
    extra = {SOURCE: f"{source.kind}/{source.run}/{source.array}"}
    try:
        group = slide.create_raster_group(
            source.grid, name, arrays, provenance, extra=extra, overwrite=overwrite
        )
    except SettingsConflictError as error:
        stored = slide.run_attrs(source.grid, names.MASKS, name)
        asked = {names.PROVENANCE: provenance, names.EXTRA: extra}
        mpp = None if spec.px_level0 is not None else slide.record.mpp
        raise SettingsConflictError(conflict(name, stored, asked, mpp)) from error
    wanted = [(int(row), int(col)) for row, col in np.argwhere(stitched.chunks_with_tiles())]
    to_do = _to_do(group, wanted, verify=verify)
    job = delayed(StitchJob(stitched, group, array), traverse=False)
    n_bytes = 0
    for start in range(0, len(to_do), _BATCH):
        batch = to_do[start : start + _BATCH]
        n_bytes += sum(compute([delayed(write_chunk)(job, row, col) for row, col in batch]))
        progress(start + len(batch), len(to_do))
    if to_do or not group.complete:
        group.finish()
    return StitchResult(
        slide.slide_id,
        source.grid,
        stitched.raster,
        len(wanted),
        len(to_do),
        n_bytes,
        time.perf_counter() - started,
    )


def write_chunk(job: StitchJob, row: int, col: int) -> int:
    """Paint one chunk, of all classes, and write it; return the bytes written."""
    leading = (0,) * (job.stitched.ndim - 2)
    rows, columns = job.group.chunk_slices(job.array, (*leading, row, col))[-2:]
    painted = job.stitched.painted(rows, columns)
    n_bytes = 0
    if names.MASK in job.group.layouts and job.stitched.spec.argmax:
        n_bytes += job.group.write(names.MASK, (row, col), _greatest(painted))
    for number in range(len(painted)):
        values = job.stitched.stored(painted[number])
        if leading:
            n_bytes += job.group.write(job.array, (number, row, col), values[None])
        else:
            n_bytes += job.group.write(job.array, (row, col), values)
    return n_bytes


def _to_do(
    group: RasterGroup, wanted: Sequence[tuple[int, int]], *, verify: bool
) -> list[tuple[int, int]]:
    """Return the chunks, over all arrays and classes, of which anything is to be written."""
    found: set[tuple[int, ...]] = set()
    for array, layout in group.layouts.items():
        indices = [(*of, *place) for of in np.ndindex(*layout.grid[:-2]) for place in wanted]
        found.update(index[-2:] for index in group.to_do(array, indices, verify=verify))
    return [place for place in wanted if place in found]


def _greatest(painted: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return 1 + the greatest class of each pixel, of equal ones the first; 0 where there is nothing."""
    nothing = np.isnan(painted)
    greatest = 1 + np.argmax(np.where(nothing, -np.inf, painted), axis=0)
    return np.where(nothing.all(axis=0), 0, greatest).astype(np.uint8)


def _mask_spec(stitched: Stitched) -> RasterSpec:
    n_classes = stitched.shape[0]
    if n_classes > _MOST_CLASSES:
        raise InputError(
            f"a mask holds {_MOST_CLASSES} classes, not {n_classes}: leave --argmax away"
        )
    known = stitched.attrs.get(names.CLASS_NAMES, range(n_classes))
    meanings = ["nothing", *("_".join(str(name).split()) for name in known)]
    return RasterSpec(
        stitched.dims[-2:],
        stitched.shape[-2:],
        "uint8",
        stitched.raster.px_level0,
        attrs={
            "long_name": "greatest class",
            "flag_values": list(range(n_classes + 1)),
            "flag_meanings": " ".join(meanings),
        },
    )


def _provenance(slide: SlideView, stitched: Stitched) -> Mapping[str, Any]:
    """Return what decides the pixels."""
    source, spec = stitched.source, stitched.spec
    made_by: dict[str, Any] = {
        "slide": slide.record.fingerprint,
        names.GRID_MADE_BY: source.grid_made_by,
        SOURCE: {"kind": source.kind, "array": source.array, "fingerprint": source.made_by},
        "mode": spec.mode,
        PX_LEVEL0: stitched.raster.px_level0,
        "dtype": stitched.dtype.name,
        "argmax": spec.argmax,
        VERSION: STITCH_VERSION,
    }
    if spec.mode == "gaussian":
        made_by["sigma"] = GAUSSIAN_SIGMA
    if spec.mode == "vote" and not (stitched.keeps_labels or stitched.ndim > 2):
        made_by["vote_from"] = spec.vote_from
    return made_by
