"""What each step from raw scores to a mask is worth: global threshold, z-score, IoU threshold, morphology."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from jobs.calibration.lattice import LatticePlace
from jobs.calibration.morphology import MorphologySpec, cleaned_tiles
from jobs.calibration.oracle import best_threshold
from jobs.calibration.threshold import Threshold, above, choose_threshold, every_threshold
from jobs.calibration.zscore import ZScore, zscores
from jobs.evaluation.bootstrap import Bootstrap, Intervals, overlap_measure
from jobs.evaluation.burden import NO_TUMOUR, STRATA, burden_of, stratum_of
from jobs.score_reader import SlideScore
from models.overlap import Overlap
from store_schema.errors import InputError

ALL: Final = "all"
"""The group of all judged slides."""

Flags: TypeAlias = npt.NDArray[np.bool_]

Counts: TypeAlias = Mapping[str, Overlap]
"""Slide id → counts."""


@dataclass(frozen=True)
class LadderSlide:
    """A slide of the ladder.

    Attributes
    ----------
    slide_id
        The slide.
    raw
        float (tile,), the scores; what isn't finite is never flagged.
    truth
        bool (tile,).
    row, col
        int (tile,), places in the lattice.
    lattice_shape
        Its number of rows and columns.
    """

    slide_id: str
    raw: npt.NDArray[np.floating]
    truth: Flags
    row: npt.NDArray[np.integer]
    col: npt.NDArray[np.integer]
    lattice_shape: tuple[int, int]

    @classmethod
    def of(cls, score: SlideScore, truth: Flags) -> LadderSlide:
        """Join what :func:`jobs.score_reader.read_score` read with the truth of the same tiles, bool (tile,)."""
        shape = LatticePlace.of(score.slide, score.grid).shape
        table = score.table
        return cls(score.slide.slide_id, score.values, truth, table.row, table.col, shape)


@dataclass(frozen=True)
class LadderSettings:
    """How the steps are done.

    Attributes
    ----------
    zscore
        Of the second step on.
    morphology
        Of the last step.
    oracle
        Whether to add an upper bound: the last step with each slide's own best threshold, which looks at its truth
        (:func:`jobs.calibration.oracle.best_threshold`).
    bootstrap
        How intervals are made, with the thresholds as they are; None makes none.
    """

    zscore: ZScore = "mean-std"
    morphology: MorphologySpec = field(default_factory=MorphologySpec)
    oracle: bool = False
    bootstrap: Bootstrap | None = None


@dataclass(frozen=True)
class GroupResult:
    """One step on some of the judged slides.

    Attributes
    ----------
    group
        ``all``, or a stratum of :mod:`jobs.evaluation.burden`.
    n_slides
        In it.
    mean_iou
        Mean over its slides that have positive tiles; None where none has. Slides without any are left out, since
        their IoU is 0 by a single false alarm and undefined without: ``overlap.fp`` counts theirs.
    overlap
        Counts of all tiles of the group; its ``iou`` is the pooled one.
    intervals
        Of ``mean_<ratio>`` and ``pooled_<ratio>``, see :func:`jobs.evaluation.bootstrap.overlap_measure`.
    """

    group: str
    n_slides: int
    mean_iou: float | None
    overlap: Overlap
    intervals: Intervals = field(default_factory=dict)


@dataclass(frozen=True)
class LadderStep:
    """One step.

    Attributes
    ----------
    name
        ``every-tile``, ``global``, ``zscore``, ``iou``, ``morphology`` or ``oracle``.
    title
        What is done, for tables.
    threshold
        On raw scores in the step ``global``, on z-scores after; None where there is none, or each slide has its own.
    at_end
        Whether it is the lowest or highest that was tried.
    upper_bound
        Whether the step looked at the truth of the slides that it is judged on.
    groups
        ``all`` first, then the strata that have slides.
    slides
        Slide id → counts.
    """

    name: str
    title: str
    threshold: float | None
    at_end: bool
    upper_bound: bool
    groups: tuple[GroupResult, ...]
    slides: Mapping[str, Overlap]


@dataclass(frozen=True)
class Ladder:
    """All steps.

    Attributes
    ----------
    steps
        In order.
    fit_slides
        Whose truth chose the thresholds.
    judged_slides
        What the numbers are of.
    burden
        Judged slide → share of its tiles that is positive.
    n_without_score
        Tiles of the judged slides whose score isn't finite: never flagged.
    bootstrap
        How intervals were made.
    """

    steps: tuple[LadderStep, ...]
    fit_slides: tuple[str, ...]
    judged_slides: tuple[str, ...]
    burden: Mapping[str, float]
    n_without_score: int
    bootstrap: Bootstrap | None = None

    @property
    def judged_twice(self) -> tuple[str, ...]:
        """Judged slides that also chose the thresholds: their numbers are better than those of new slides."""
        return tuple(slide for slide in self.judged_slides if slide in set(self.fit_slides))


def ladder(
    fit: Sequence[LadderSlide],
    judged: Sequence[LadderSlide],
    settings: LadderSettings = LadderSettings(),
) -> Ladder:
    """Climb the ladder: thresholds are chosen on some slides, pooled, and judged on others.

    Parameters
    ----------
    fit
        Slides that choose the thresholds: of a validation split.
    judged
        Slides that the numbers are of: of a test split.
    settings
        How.

    Returns
    -------
    Ladder
        ``every-tile``: all tiles flagged, the floor that a score must beat. ``global``: threshold of the greatest F1
        on raw scores, of all there are. ``zscore``: of the greatest F1 on z-scores, of ``linspace(-3, 5, 100)``.
        ``iou``: of the greatest IoU. ``morphology``: the same threshold, then
        :func:`jobs.calibration.morphology.cleaned`. ``oracle``, where asked for.

    Raises
    ------
    InputError
        There is nothing to choose by, or nothing to judge.

    Notes
    -----
    ``zscore`` and ``iou`` always come to the same: F1 = 2 IoU / (1 + IoU) rises with IoU, so of pooled counts the
    best threshold by one is the best by the other. Both are kept so that nobody has to wonder about it.
    """
    if not judged:
        raise InputError(
            "the ladder has no slide with scores and truth to judge: check the split and --truth"
        )
    if not any(slide.truth.any() for slide in fit):
        raise InputError(
            f"none of the {len(fit)} slides that choose the thresholds has a positive tile: check the split and --truth"
        )
    z_of = {id(slide): zscores(slide.raw, settings.zscore).values for slide in (*fit, *judged)}
    truth = np.concatenate([slide.truth for slide in fit])
    raw = np.concatenate([slide.raw for slide in fit])
    z = np.concatenate([z_of[id(slide)] for slide in fit])
    raw_f1 = choose_threshold(raw, truth, "f1", every_threshold(raw))
    z_f1, z_iou = choose_threshold(z, truth, "f1"), choose_threshold(z, truth, "iou")

    def clean(slide: LadderSlide, flagged: Flags) -> Flags:
        mask = cleaned_tiles(
            flagged, slide.row, slide.col, slide.lattice_shape, settings.morphology
        )
        of_tiles: Flags = mask[slide.row, slide.col]
        return of_tiles

    def flagged_by(threshold: float) -> Callable[[LadderSlide], Flags]:
        return lambda slide: above(z_of[id(slide)], threshold)

    def best_of_its_own(slide: LadderSlide) -> Flags:
        z = z_of[id(slide)]
        best = best_threshold(z, slide.truth, "iou", lambda flagged: clean(slide, flagged))
        return clean(slide, above(z, best.value))

    def judge(flag: Callable[[LadderSlide], Flags]) -> tuple[tuple[GroupResult, ...], Counts]:
        return _judge(judged, flag, settings.bootstrap)

    def step(
        name: str, title: str, of: Threshold, flag: Callable[[LadderSlide], Flags]
    ) -> LadderStep:
        return LadderStep(name, title, of.value, of.at_end, False, *judge(flag))

    steps = [
        LadderStep(
            "every-tile", "every tile flagged (floor)", None, False, False,
            *judge(lambda slide: np.ones_like(slide.truth)),
        ),
        step("global", "global threshold (F1)", raw_f1, lambda slide: above(slide.raw, raw_f1.value)),
        step("zscore", "per-slide z-score (F1)", z_f1, flagged_by(z_f1.value)),
        step("iou", "threshold by IoU", z_iou, flagged_by(z_iou.value)),
        step(
            "morphology", "morphology", z_iou,
            lambda slide: clean(slide, flagged_by(z_iou.value)(slide)),
        ),
    ]  # fmt: skip
    if settings.oracle:
        title = "each slide's own best threshold (upper bound)"
        steps.append(LadderStep("oracle", title, None, False, True, *judge(best_of_its_own)))
    return Ladder(
        tuple(steps),
        tuple(slide.slide_id for slide in fit),
        tuple(slide.slide_id for slide in judged),
        {slide.slide_id: burden_of(slide.truth) for slide in judged},
        sum(int(np.count_nonzero(~np.isfinite(slide.raw))) for slide in judged),
        settings.bootstrap,
    )


def _judge(
    slides: Sequence[LadderSlide],
    flag: Callable[[LadderSlide], Flags],
    bootstrap: Bootstrap | None,
) -> tuple[tuple[GroupResult, ...], Counts]:
    counts = {slide.slide_id: Overlap.of(flag(slide), slide.truth) for slide in slides}
    strata = {slide.slide_id: stratum_of(burden_of(slide.truth)) for slide in slides}
    found = [_group(ALL, counts, bootstrap)]
    for name in (NO_TUMOUR, *STRATA):
        members = {i: counts[i] for i, stratum in strata.items() if stratum == name}
        if members:
            found.append(_group(name, members, bootstrap))
    return tuple(found), counts


def _group(name: str, counts: Counts, bootstrap: Bootstrap | None) -> GroupResult:
    of_positive = [each.iou for each in counts.values() if each.tp + each.fn]
    known = [iou for iou in of_positive if iou is not None]
    pooled = reduce(Overlap.__add__, counts.values())
    intervals: Intervals = {}
    if bootstrap is not None and pooled.tp + pooled.fn:
        intervals = bootstrap.intervals(list(counts), overlap_measure(list(counts.values())))
    mean_iou = float(np.mean(known)) if known else None
    return GroupResult(name, len(counts), mean_iou, pooled, intervals)
