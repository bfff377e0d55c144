"""A slide's stitched confidence refined by a CRF on its pixels: ``masks/<name>``, chunk by chunk, resumable."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from dask.delayed import delayed

from dataflow.area_read import read_area
from dataflow.mask_refine import greatest
from dataflow.padded_window import Box, inner, padded, windows
from dataflow.resample import Box as LevelBox
from dataflow.slide import SlideReader, open_slide
from dataflow.slide_digest import slide_digest
from dataflow.stitch_store import Compute
from jobs.pbip.confidence import Confidence, provenance
from models.crf import CrfSpec, refined
from store_schema import names
from store_schema.errors import InputError
from store_schema.raster_group import RasterGroup

_WINDOW_PX: Final = 512  # its pairs of pixels are what takes memory: about 100 MB
_BATCH: Final = 64  # chunks that are handed to Dask at one time


@dataclass(frozen=True)
class CrfJob:
    """What a task needs to refine any chunk of a slide; picklable.

    Attributes
    ----------
    source
        The confidence to refine.
    group
        Where the result goes.
    path, mpp
        The slide's file, and a pixel size given over what it says.
    spec, device
        The field, and where it is computed.
    """

    source: Confidence
    group: RasterGroup
    path: str
    mpp: float | None
    spec: CrfSpec
    device: str


def refine_slide(
    source: Confidence,
    name: str,
    path: str,
    mpp: float | None,
    spec: CrfSpec,
    *,
    device: str,
    overwrite: bool,
    compute: Compute,
) -> float:
    """Write ``masks/<name>`` of a refined confidence and its mask; the same again is a no-op.

    Parameters
    ----------
    source, path, mpp, spec, device
        As of :class:`CrfJob`.
    name
        Of the group.
    overwrite
        Replace one of other settings.
    compute
        Computes Dask tasks: in threads, or on a cluster.

    Returns
    -------
    float
        Seconds that it took.

    Raises
    ------
    InputError
        The pixels are finer than the slide's, or the file is another slide by now.
    SettingsConflictError
        There is a group of that name that was made otherwise.
    SlideError
        The slide can't be read.
    """
    started = time.perf_counter()
    if source.px_level0 < 1:
        raise InputError(
            f"slide {source.slide.slide_id} has no pixels of {source.px_level0:.3g} level-0 px that a CRF could look "
            "at: ask for a coarser --mpp, or a smaller --map-px"
        )
    group = source.slide.create_raster_group(
        source.grid,
        name,
        source.arrays(),
        provenance(source, crf=spec.provenance),
        extra={"source": f"{names.MASKS}/{source.name}/{names.CONFIDENCE}"},
        overwrite=overwrite,
    )
    to_do = _to_do(group)
    if to_do and slide_digest(path) != source.slide.record.fingerprint:
        raise InputError(
            f"{path} is another slide than {source.slide.slide_id} was indexed from: restore the file, or index anew"
        )
    job = delayed(CrfJob(source, group, path, mpp, spec, device), traverse=False)
    for start in range(0, len(to_do), _BATCH):
        compute([delayed(refine_chunk)(job, *place) for place in to_do[start : start + _BATCH]])
    if to_do or not group.complete:
        group.finish()
    return time.perf_counter() - started


def refine_chunk(job: CrfJob, row: int, col: int) -> int:
    """Refine one chunk, of all classes, and write it; return the bytes written."""
    rows, columns = job.group.chunk_slices(names.MASK, (row, col))
    share = _refined(job, (rows, columns)).astype(np.float16)
    # the mask is that of the numbers that are stored
    n_bytes = job.group.write(names.MASK, (row, col), greatest(share))
    for number in range(len(share)):
        n_bytes += job.group.write(names.CONFIDENCE, (number, row, col), share[number : number + 1])
    return n_bytes


def _refined(job: CrfJob, chunk: Box) -> npt.NDArray[np.float32]:
    source, margin_px = job.source, job.spec.margin_px
    around = padded(source.read, source.shape, chunk, margin_px, np.nan)
    shape = chunk[0].stop - chunk[0].start, chunk[1].stop - chunk[1].start
    out = np.full((len(around), *shape), np.nan, np.float32)
    reader: SlideReader | None = None
    try:
        for rows, columns in windows(shape, _WINDOW_PX):
            grown = tuple(slice(p.start, p.stop + 2 * margin_px) for p in (rows, columns))
            confidence = around[(slice(None), *grown)]
            if np.isnan(inner(confidence, margin_px)).all():
                continue
            if reader is None:
                reader = open_slide(job.path, job.mpp)
            first = (
                chunk[0].start + rows.start - margin_px,
                chunk[1].start + columns.start - margin_px,
            )
            image = picture(reader, source.px_level0, first, confidence.shape[-2:])
            out[:, rows, columns] = inner(
                refined(confidence, image, job.spec, job.device), margin_px
            )
    finally:
        if reader is not None:
            reader.close()
    return out


def picture(
    reader: SlideReader, px_level0: float, first: tuple[int, int], shape: tuple[int, ...]
) -> npt.NDArray[np.uint8]:
    """Read a slide on a raster that begins at its corner.

    Parameters
    ----------
    reader
        The opened slide.
    px_level0
        Side of a pixel of the raster [px, level 0], at least 1.
    first
        (row, column) of the first pixel; it may lie beyond the slide, which is white.
    shape
        Rows and columns.

    Returns
    -------
    ndarray
        uint8 (y, x, rgb).
    """
    level = reader.info.finer_level(px_level0)
    px = px_level0 / reader.info.levels[level].downsample
    out = np.empty((shape[0], shape[1], 3), np.uint8)
    box = LevelBox(first[1] * px, first[0] * px, shape[1] * px, shape[0] * px)
    read_area(reader, level, box, out)
    return out


def _to_do(group: RasterGroup) -> list[tuple[int, ...]]:
    places = group.chunk_indices(names.MASK)
    found: set[tuple[int, ...]] = set()
    for array, layout in group.layouts.items():
        leading = list(np.ndindex(*layout.grid[:-2]))
        indices = [(*of, *place) for of in leading for place in places]
        found.update(index[-2:] for index in group.to_do(array, indices))
    return [place for place in places if place in found]
