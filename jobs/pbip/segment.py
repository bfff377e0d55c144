"""A cohort segmented: overlapping tiles through the networks, stitched, refined, and written as files; resumable."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from dataflow.mask_refine import RefineSpec
from dataflow.stitch_spec import StitchSpec
from dataflow.stitch_store import Compute
from jobs.mil.labels import NEGATIVE_NAMES
from jobs.pbip.classes import read_classes
from jobs.pbip.confidence import Confidence
from jobs.pbip.overlap import (
    SegmentedSlide,
    overlapping,
    slides_to_segment,
    write_slide_list,
)
from jobs.pbip.segment_crf import refine_slide
from jobs.pbip.segment_files import SegmentedRasters, stored_metadata, write_files
from jobs.pbip.segment_post import PostSpec, post_process
from jobs.pbip.segment_settings import PbipSegmentSettings
from jobs.pbip.segment_stream import stream_slides
from jobs.progress import say
from jobs.run_config import ClusterSettings, RunConfig, absolute_url, grid_spec
from jobs.run_directory import write_whole
from jobs.score_reader import ScoreChoice
from jobs.stitching import StitchSettings, computing_on, stitch_slides
from models.crf import CrfSpec
from store_schema import names
from store_schema.errors import ClusterError, InputError, SlidestreamError
from store_schema.ids import check_name
from store_schema.near_names import near
from store_schema.store import Store, open_store

BATCH_RESULTS: Final = "batch_results.csv"
SLIDE_LIST: Final = "slides.csv"


@dataclass(frozen=True)
class SegmentConfig:
    """One call of ``pbip segment``.

    Attributes
    ----------
    store, grid
        Where the slides are, and their grid.
    networks
        What makes confidence of tiles; its name is that of all that is written.
    out
        Folder of the files, one folder a slide in it.
    run_dir
        Folder of the log and the metrics.
    slides, files
        As of :func:`jobs.pbip.overlap.slides_to_segment`.
    overlap, tissue_mask
        As of :func:`jobs.pbip.overlap.overlapping`.
    stitch
        How maps of tiles become one of the slide.
    crf
        The field that refines it, into ``masks/<name>-crf``; None leaves that out.
    refine
        What is done to the mask, into ``masks/<name>-post``.
    background
        The class that regions grow into; None takes the one whose name says that nothing was found (benign, normal …),
        or the first.
    gate
        CSV of slide labels: classes that a slide's label doesn't name are taken out of its mask. None takes none.
    cluster, overwrite
        As the options of these names say.
    """

    store: str
    grid: str
    networks: PbipSegmentSettings
    out: str
    run_dir: str
    slides: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    overlap: float = 0.0
    tissue_mask: str | None = None
    stitch: StitchSpec = field(default_factory=lambda: StitchSpec(argmax=True))
    crf: CrfSpec | None = None
    refine: RefineSpec = field(default_factory=RefineSpec)
    background: str | None = None
    gate: str | None = None
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    overwrite: bool = False

    @property
    def name(self) -> str:
        """Of scores and masks."""
        return check_name(self.networks.name, "--name")


@dataclass(frozen=True)
class _Call:
    """A call with all that was looked up for it."""

    config: SegmentConfig
    store: Store
    grid: str  # that tiles are on, with their overlap
    class_names: tuple[str, ...]
    background: int
    allowed: Mapping[str, int] | None  # slide id → position of its label's class
    device: str
    model: str
    compute: Compute
    seconds: Mapping[str, Mapping[str, float]]


def segment(config: SegmentConfig, *, quiet: bool) -> dict[str, Any]:
    """Segment slides; one that can't be segmented does not stop the others.

    Parameters
    ----------
    config
        The call.
    quiet
        Show no progress.

    Returns
    -------
    dict
        Metrics of the stream (see :func:`jobs.summary.run_metrics`), with ``segmented`` (slide id → its metadata) and
        ``unsegmented`` (slide id → why).

    Raises
    ------
    SlidestreamError
        Nothing can be started.
    """
    url = absolute_url(config.store)
    store = open_store(url, mode="r+")
    slides = slides_to_segment(store, config.grid, config.slides, config.files)
    factory = config.networks.factory()
    background = background_class(factory.class_names, config.background)
    allowed = None if config.gate is None else _gate(Path(config.gate), factory.class_names)
    stream = _stream_config(config, store, slides)
    metrics, seconds = stream_slides(stream, quiet=quiet)
    metrics |= {"masks": config.name, "out": config.out, "segmented": {}, "unsegmented": {}}
    if not metrics["cancelled"] and not any(f["fatal"] for f in metrics["failures"]):
        with computing_on(config.cluster.scheduler) as compute:
            call = _Call(
                config,
                store,
                str(metrics["grid"]),
                factory.class_names,
                background,
                allowed,
                factory.device,
                factory.name,
                compute,
                seconds,
            )
            _segment_all(call, slides, metrics, None if quiet else say)
    metrics["ok"] = metrics["ok"] and not metrics["unsegmented"]
    write_whole(Path(config.run_dir) / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def _stream_config(
    config: SegmentConfig, store: Store, slides: Sequence[SegmentedSlide]
) -> RunConfig:
    """Return the streaming half as any command's: on the grid that is there, or on one that it lays first."""
    settings = overlapping(store, slides, config.grid, config.overlap, config.tissue_mask)
    files = config.files
    if settings is not None:
        check = config.networks.grid_check()
        check(grid_spec(settings))
        path = Path(config.run_dir) / SLIDE_LIST
        write_slide_list(path, slides)
        files = (str(path),)
    return RunConfig(
        command="pbip segment",
        slides=files,
        store=config.store,
        grid=settings,
        encode=config.networks,
        cluster=config.cluster,
        grid_name=config.grid if settings is None else None,
        overwrite=config.overwrite,
        run_dir=config.run_dir,
        slide_ids=tuple(slide.slide_id for slide in slides),
    )


def _segment_all(
    call: _Call,
    slides: Sequence[SegmentedSlide],
    metrics: dict[str, Any],
    tell: Callable[[str], None] | None,
) -> None:
    failed = {failure["slide_id"] for failure in metrics["failures"]}
    for number, slide in enumerate(slides, start=1):
        if slide.slide_id in failed:
            continue
        try:
            found = _segment_slide(call, slide)
        except SlidestreamError as error:
            if error.fatal or isinstance(error, ClusterError):
                raise
            metrics["unsegmented"][slide.slide_id] = str(error)
        else:
            metrics["segmented"][slide.slide_id] = found
            if tell is not None:
                tell(f"segmented {number}/{len(slides)}: {slide.slide_id}")
    rows = [metrics["segmented"][s.slide_id] for s in slides if s.slide_id in metrics["segmented"]]
    if rows:
        write_whole(Path(call.config.out) / BATCH_RESULTS, batch_table(rows, call.class_names))


def _segment_slide(call: _Call, slide: SegmentedSlide) -> dict[str, Any]:
    """Stitch, refine and write one slide; what is there already is left as it is."""
    config, view = call.config, call.store[slide.slide_id]
    seconds = {stage: round(s, 3) for stage, s in call.seconds.get(slide.slide_id, {}).items()}
    choice = ScoreChoice(config.name, names.CONFIDENCE, grid=call.grid)
    stitching = StitchSettings(
        choice,
        config.name,
        config.stitch,
        (slide.slide_id,),
        config.overwrite,
        config.networks.verify,
    )
    (stitched,) = stitch_slides(call.store, stitching, call.compute)
    if stitched.result is None:
        raise InputError(stitched.problem)
    seconds["stitch"] = round(stitched.result.seconds, 3)
    confidence = Confidence(view, call.grid, config.name)
    mask_name = config.name
    if config.crf is not None:
        mask_name = f"{config.name}-crf"
        seconds["crf"] = round(
            refine_slide(
                confidence,
                mask_name,
                slide.path,
                slide.mpp,
                config.crf,
                device=call.device,
                overwrite=config.overwrite,
                compute=call.compute,
            ),
            3,
        )
        confidence = Confidence(view, call.grid, mask_name)
    post = PostSpec(_allowed(call, slide.slide_id), config.refine, call.background)
    if post.does_something:
        mask_name = f"{config.name}-post"
        took = post_process(confidence, mask_name, post, overwrite=config.overwrite)
        seconds["post"] = round(took, 3)
    rasters = SegmentedRasters(confidence, mask_name, call.background)
    folder = Path(config.out) / slide.slide_id
    known = stored_metadata(folder, rasters)
    if known is not None:
        return known
    said = {
        "wsi_name": Path(slide.path).name,
        "slide_id": slide.slide_id,
        "model_version": call.model,
        "checkpoints": list(config.networks.checkpoints),
        "num_patches": len(view.tile_table(call.grid)),
        "grid": call.grid,
        "overlap": config.overlap,
        "tta": config.networks.tta,
        "stitch": config.stitch.mode,
        "crf": None if config.crf is None else asdict(config.crf),
        "post_processing": post.steps(call.class_names),
        "gated_by_label": call.allowed is not None,
        "seconds": seconds,
    }
    return write_files(folder, rasters, said)


def _allowed(call: _Call, slide_id: str) -> tuple[int, ...] | None:
    if call.allowed is None:
        return None
    if slide_id not in call.allowed:
        raise InputError(
            f"slide {slide_id} has no label to gate by: add it to {call.config.gate}, or leave --gate-by-label out"
        )
    return tuple(sorted({call.background, call.allowed[slide_id]}))


def _gate(labels: Path, class_names: tuple[str, ...]) -> dict[str, int]:
    """Return slide id → position of the class that its label names."""
    table, _ = read_classes(labels, class_names)
    return {
        slide_id: classes[0]
        for slide_id, classes in zip(table.slide_ids, table.labels, strict=True)
    }


def background_class(class_names: tuple[str, ...], wanted: str | None) -> int:
    """Return the position of the class that regions grow into: the named one, else benign, normal …, else the first.

    Raises
    ------
    InputError
        There is no such class.
    """
    if wanted is not None:
        if wanted not in class_names:
            raise InputError(
                f"there is no class {wanted!r} for a background: {near(wanted, list(class_names))}"
            )
        return class_names.index(wanted)
    telling = [n for n, name in enumerate(class_names) if name.lower() in NEGATIVE_NAMES]
    return telling[0] if telling else 0


def batch_table(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> str:
    """Return the table of a cohort as CSV: a line a slide, with its time by stage and the area of each class."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row["seconds"]))
    head = ["wsi_name", "slide_id", "num_patches", "processing_time", "model_version"]
    head += [f"{stage}_sec" for stage in stages]
    head += [f"{name}_mm2" for name in class_names] + [f"{name}_share" for name in class_names]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    for row in rows:
        pixels = np.array([row["pixels"][name] for name in class_names], float)
        shares = pixels / pixels.sum() if pixels.sum() else pixels
        areas = row["area_mm2"] or {}
        table.writerow(
            [row["wsi_name"], row["slide_id"], row["num_patches"], row["processing_time_sec"]]
            + [row["model_version"]]
            + [row["seconds"].get(stage, "") for stage in stages]
            + [areas.get(name, "") for name in class_names]
            + [f"{share:.6f}" for share in shares]
        )
    return text.getvalue()
