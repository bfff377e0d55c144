"""How well scores say where: tiles, pixels and lesions of a store's slides against what is true of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs.calibration.stored import UPPER_BOUND
from jobs.calibration.threshold import above
from jobs.evaluation.bootstrap import Bootstrap, Intervals
from jobs.evaluation.burden import stratum_of
from jobs.evaluation.detections import SlideDetections
from jobs.evaluation.froc import Froc, froc_with_chance
from jobs.evaluation.ladder import LadderSlide
from jobs.evaluation.lesions import find_lesions
from jobs.evaluation.localization_intervals import CountedSlide, group_intervals
from jobs.evaluation.model_split import ModelSplit, split_of
from jobs.evaluation.pixel_level import (
    PixelCounts,
    PixelMetrics,
    count_pixels,
    pixel_metrics,
)
from jobs.evaluation.slide_truth import SlideTruth, WithoutTruth, truth_of_slide
from jobs.evaluation.tile_level import (
    ALL,
    GroupMetrics,
    SlideTiles,
    TileMetrics,
    group_metrics,
    tile_metrics,
)
from jobs.evaluation.truth import Truth, open_truth
from jobs.mask_region import region_of
from jobs.mask_tiles import mask_of_tiles
from jobs.raster_reader import RasterChoice, SlideRaster, read_raster
from jobs.same_scores import check_same_scores
from jobs.score_reader import ScoreChoice, SlideScore, read_score
from store_schema import names
from store_schema.errors import InputError, SlidestreamError
from store_schema.slide_view import SlideView


@dataclass(frozen=True)
class LocalizationSettings:
    """What is judged, by which truth.

    Attributes
    ----------
    choice
        Which number of which run; more of it means positive.
    truth
        Where the truth is; see :func:`jobs.evaluation.truth.open_truth`.
    positive_from
        A tile is positive if more of its area than this is.
    without_truth
        What becomes of slides that nothing is known of.
    threshold
        Tiles and pixels that score more are flagged.
    mask
        Or: those in this mask of the store are.
    raster
        Stitched map whose pixels are judged, too.
    bootstrap
        How intervals are made; None makes none. Its seed is that of what chance gives, too.
    """

    choice: ScoreChoice
    truth: Path
    positive_from: float = 0.5
    without_truth: WithoutTruth = "skip"
    threshold: float | None = None
    mask: RasterChoice | None = None
    raster: RasterChoice | None = None
    bootstrap: Bootstrap | None = None


@dataclass(frozen=True)
class SlideResult:
    """One slide.

    Attributes
    ----------
    slide_id
        The slide.
    tiles
        Its tiles.
    pixels
        Its pixels, None where they weren't asked for or only tiles are known.
    n_lesions, n_isolated
        What there is to be found; None where only tiles are known.
    upper_bound
        Whether its mask looked at its truth.
    chose_threshold
        Whether it is one of the slides that chose the threshold of its mask.
    model_split
        Which part of its model's training the slide was in, as far as the scores say.
    notes
        What should be known of it, in sentences.
    """

    slide_id: str
    tiles: TileMetrics
    pixels: PixelMetrics | None
    n_lesions: int | None
    n_isolated: int | None
    upper_bound: bool
    chose_threshold: bool
    model_split: ModelSplit | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Localization:
    """What came of it.

    Attributes
    ----------
    slides
        One a slide that was judged.
    groups
        All of them, then by tumour burden.
    pixels
        Group → its pixels together; empty where none were judged.
    intervals
        Group → those of its numbers; empty where none were asked for.
    bootstrap
        How they were made.
    froc
        Lesions found against false alarms; None where the slides have no lesion.
    tiles
        The judged tiles themselves, for curves.
    without_truth
        Slides that have the score, and of which nothing is known.
    problems
        Slide id → why it could not be judged.
    """

    slides: tuple[SlideResult, ...]
    groups: tuple[GroupMetrics, ...]
    pixels: Mapping[str, PixelMetrics]
    intervals: Mapping[str, Intervals]
    bootstrap: Bootstrap | None
    froc: Froc | None
    tiles: tuple[SlideTiles, ...]
    without_truth: tuple[str, ...]
    problems: dict[str, str]

    @property
    def slide_ids(self) -> list[str]:
        """Of the judged slides."""
        return [slide.slide_id for slide in self.slides]

    @property
    def decided(self) -> bool:
        """Whether tiles were flagged, by a threshold or a mask."""
        return any(slide.tiles.overlap is not None for slide in self.slides)

    @property
    def upper_bound(self) -> bool:
        """Whether masks looked at the truth of their slides: say so wherever a number of them is shown."""
        return any(slide.upper_bound for slide in self.slides)


@dataclass(frozen=True)
class _Judged:
    result: SlideResult
    tiles: SlideTiles
    detections: SlideDetections | None
    pixels: PixelCounts | None


def evaluate_localization(
    slides: Sequence[SlideView], settings: LocalizationSettings
) -> Localization:
    """Judge a score slide by slide; one that can't be judged doesn't stop the others.

    Parameters
    ----------
    slides
        That have the score.
    settings
        What to judge by what.

    Raises
    ------
    InputError
        There is no such truth.
    """
    truth = open_truth(settings.truth)
    without, problems = [], dict[str, str]()
    results: list[SlideResult] = []
    tiles: list[SlideTiles] = []
    detections: list[SlideDetections] = []
    pixels: dict[str, PixelCounts] = {}
    counted: dict[str, list[CountedSlide]] = {}
    for slide in slides:
        try:
            judged = _judge(slide, truth, settings)
        except SlidestreamError as error:
            problems[slide.slide_id] = str(error)
            continue
        if judged is None:
            without.append(slide.slide_id)
            continue
        results.append(judged.result)
        tiles.append(judged.tiles)
        if judged.detections is not None:
            detections.append(judged.detections)
        in_groups = (ALL, stratum_of(judged.result.tiles.burden))
        if judged.pixels is not None:
            for group in in_groups:
                pixels.setdefault(group, PixelCounts.none()).add(judged.pixels)
        if settings.bootstrap is not None:
            kept = CountedSlide.of(judged.tiles, judged.result.tiles, judged.pixels)
            for group in in_groups:
                counted.setdefault(group, []).append(kept)
    bootstrap = settings.bootstrap
    return Localization(
        tuple(results),
        group_metrics(tiles),
        {group: pixel_metrics(counts) for group, counts in pixels.items()},
        {}
        if bootstrap is None
        else {group: group_intervals(members, bootstrap) for group, members in counted.items()},
        bootstrap,
        froc_with_chance(detections, bootstrap),
        tuple(tiles),
        tuple(without),
        problems,
    )


def ladder_slides(
    slides: Sequence[SlideView], settings: LocalizationSettings
) -> tuple[list[LadderSlide], dict[str, str]]:
    """Read slides for :func:`jobs.evaluation.ladder.ladder`, and say of which that can't be.

    Slides of which nothing is known are left out, unless they are taken for negative.
    """
    truth = open_truth(settings.truth)
    found, problems = [], dict[str, str]()
    for slide in slides:
        try:
            read = _read(slide, truth, settings)
        except SlidestreamError as error:
            problems[slide.slide_id] = str(error)
            continue
        if read is not None:
            score, known = read
            found.append(LadderSlide.of(score, known.tiles))
    return found, problems


def _read(
    slide: SlideView, truth: Truth, settings: LocalizationSettings
) -> tuple[SlideScore, SlideTruth] | None:
    score = read_score(slide, settings.choice)
    if len(score.table) and not np.isfinite(score.values).any():
        raise InputError(
            f"scores {score.run}/{score.array} of slide {slide.slide_id} have no finite number in "
            f"{len(score.table):,} tiles: score the slide again"
        )
    known = truth_of_slide(truth, score, settings.positive_from, settings.without_truth)
    return None if known is None else (score, known)


def _judge(slide: SlideView, truth: Truth, settings: LocalizationSettings) -> _Judged | None:
    read = _read(slide, truth, settings)
    if read is None:
        return None
    score, known = read
    mask = None
    if settings.mask is not None:
        mask = region_of(_raster(score, settings.mask), score.class_name)
    flagged = _flagged(score, mask, settings.threshold)
    metrics = tile_metrics(score.values, known.tiles, flagged)
    notes = known.notes
    if metrics.n_without_score:
        notes = (*notes, f"{metrics.n_without_score} of {metrics.n_tiles} tiles have no score")
    detections, pixels = None, None
    if known.mask is not None:
        lesions = find_lesions(known.mask, slide.record.mpp)
        if slide.record.mpp is None and lesions.n_lesions:
            notes = (
                *notes,
                "its pixel size isn't known: each region counts as a lesion, however small",
            )
        detections = SlideDetections.of(
            slide.slide_id,
            score.values,
            score.table,
            score.tile_level0,
            lesions,
            flagged,
            0 if settings.bootstrap is None else settings.bootstrap.seed,
        )
    if settings.raster is not None and known.mask is None:
        notes = (*notes, "its pixels and lesions aren't judged: only its tiles are known")
    elif settings.raster is not None and known.mask is not None:
        raster = _raster(score, settings.raster)
        if raster.values.dtype.kind != "f":
            raise InputError(
                f"{names.MASKS}/{raster.name}/{raster.array} is a mask, which scores nothing: name it with "
                "--mask, and a stitched map with --raster"
            )
        pixels = count_pixels(raster, known.mask, threshold=settings.threshold, mask=mask)
    result = SlideResult(
        slide.slide_id,
        metrics,
        None if pixels is None else pixel_metrics(pixels),
        None if detections is None else detections.found.n_lesions,
        None if detections is None else detections.found.n_isolated,
        mask is not None and bool(mask.attrs.get(UPPER_BOUND)),
        mask is not None and slide.slide_id in _choosers(mask),
        split_of(slide, score.grid, score.run),
        notes,
    )
    tiles = SlideTiles(slide.slide_id, score.values, known.tiles, flagged)
    return _Judged(result, tiles, detections, pixels)


def _raster(score: SlideScore, choice: RasterChoice) -> SlideRaster:
    raster = read_raster(score.slide, choice)
    check_same_scores(raster, score.slide, score.grid, score.run)
    return raster


def _flagged(
    score: SlideScore, mask: SlideRaster | None, threshold: float | None
) -> npt.NDArray[np.bool_] | None:
    if mask is not None:
        return mask_of_tiles(mask, score.grid, score.table, score.tile_level0) > 0
    return None if threshold is None else above(score.values, threshold)


def _choosers(mask: SlideRaster) -> Collection[str]:
    """Return the slides that chose the threshold of a calibration's mask; none of other masks."""
    threshold = mask.group_attrs[names.PROVENANCE].get("threshold")
    return threshold.get("slides", ()) if isinstance(threshold, dict) else ()
