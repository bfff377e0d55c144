"""Checks of slides: that each opens, decodes, and says its physical size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dataflow.discover import SlideSource, discover_slides
from dataflow.physical_size import require_mpp
from dataflow.slide import SlideInfo, SlideReader, open_slide
from jobs.checks import Status
from store_schema.errors import MissingMppError, SlidestreamError

_PROBE_PX: Final = 256
_DEFAULT_MPP: Final = 0.5  # of --mpp


@dataclass(frozen=True)
class SlideCheck:
    """What a slide is, and what is wrong with it.

    Attributes
    ----------
    slide_id, path
        As a run would find it.
    status
        ``fail`` when a run would skip it.
    says
        What is missing, with the option that helps; empty when all is well.
    vendor, width, height, downsamples, mpp, mpp_source
        As of ``SlideInfo``; None when it does not open.
    """

    slide_id: str
    path: str
    status: Status
    says: str
    vendor: str | None = None
    width: int | None = None
    height: int | None = None
    downsamples: tuple[float, ...] | None = None
    mpp: float | None = None
    mpp_source: str | None = None


def slide_checks(args: Sequence[str]) -> Iterator[SlideCheck]:
    """Look at the slides that arguments mean, one by one.

    Parameters
    ----------
    args
        Files, folders, globs, or a CSV.

    Raises
    ------
    InputError
        Nothing is found, or a CSV makes no sense.
    """
    sources, problems = discover_slides(args)
    for problem in problems:
        yield SlideCheck(problem.slide_id, problem.path, "fail", str(problem.error))
    for source in sources:
        yield check_slide(source)


def check_slide(source: SlideSource) -> SlideCheck:
    """Open a slide and decode a little of its finest and its coarsest level."""
    try:
        reader = open_slide(source.path, source.mpp)
    except SlidestreamError as error:
        return SlideCheck(source.slide_id, source.path, "fail", str(error))
    try:
        status, says = _judge(reader)
    finally:
        reader.close()
    info = reader.info
    return SlideCheck(
        source.slide_id,
        source.path,
        status,
        says,
        vendor=info.vendor,
        width=info.width,
        height=info.height,
        downsamples=tuple(level.downsample for level in info.levels),
        mpp=info.mpp,
        mpp_source=info.mpp_source,
    )


def _judge(reader: SlideReader) -> tuple[Status, str]:
    try:
        _probe(reader)
        mpp = require_mpp(reader.info)
    except MissingMppError:
        says = f"no usable pixel size ({reader.info.mpp_note}): give --slide-mpp, or a CSV with the column mpp"
        return "fail", says
    except SlidestreamError as error:
        return "fail", str(error)
    if mpp > _DEFAULT_MPP * 1.01:
        note = f"{reader.info.mpp_note}; " if reader.info.mpp_note else ""
        return (
            "warn",
            f"{note}coarser than the default of {_DEFAULT_MPP:g} µm/px: ask for --mpp {mpp:.4g} or more",
        )
    return ("warn" if reader.info.mpp_note else "ok"), reader.info.mpp_note


def _probe(reader: SlideReader) -> None:
    info = reader.info
    for level in {0, len(info.levels) - 1}:
        x, y, width, height = _middle(info, level)
        reader.read_level(level, x, y, width, height)


def _middle(info: SlideInfo, level: int) -> tuple[int, int, int, int]:
    size = info.levels[level]
    width, height = min(size.width, _PROBE_PX), min(size.height, _PROBE_PX)
    return (size.width - width) // 2, (size.height - height) // 2, width, height
