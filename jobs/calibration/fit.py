"""Choosing the threshold: on the slides of one part of a split, pooled, and on no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from jobs.calibration.calibration import Calibration, FitSummary
from jobs.calibration.lattice import LatticePlace
from jobs.calibration.morphology import MorphologySpec, cleaned_tiles
from jobs.calibration.threshold import (
    Z_THRESHOLDS,
    Metric,
    above,
    choose_threshold,
    hardly_better_than_all,
)
from jobs.calibration.tile_truths import TruthSettings
from jobs.calibration.zscore import ZScore, zscores
from jobs.counted import counted
from jobs.evaluation.model_split import split_of
from jobs.mil.splits import read_parts
from jobs.score_reader import ScoreChoice, SlideScore, read_score, scored_grid
from models.overlap import Overlap, Sweep, sweep
from store_schema import names
from store_schema.errors import InputError
from store_schema.labels import some
from store_schema.slide_view import SlideView
from store_schema.store import Store

FitPart: TypeAlias = Literal["val", "train"]
"""Parts that may choose a threshold; what is tested on must not."""

# what makes scores comparable between slides; precision shows in their last bits only
_MADE_BY: Final = ("model", "stain")
_OF_THE_RUN: Final = ("precision", "compile")


@dataclass(frozen=True)
class FitSettings:
    """What the threshold is chosen by.

    Attributes
    ----------
    choice
        Which number of which run.
    truth
        What is true.
    splits
        CSV with the columns ``train,val[,test]``.
    part
        Column whose slides choose the threshold.
    zscore, metric, morphology
        How.
    """

    choice: ScoreChoice
    truth: TruthSettings
    splits: Path
    part: FitPart = "val"
    zscore: ZScore = "mean-std"
    metric: Metric = "iou"
    morphology: MorphologySpec = field(default_factory=MorphologySpec)


@dataclass(frozen=True)
class _FitSlide:
    score: SlideScore
    z: npt.NDArray[np.float32]
    truth: npt.NDArray[np.bool_]

    @property
    def learned(self) -> bool:
        """Whether the model of the scores learned from the slide, as far as they say."""
        return split_of(self.score.slide, self.score.grid, self.score.run) == "train"


def fit_calibration(store: Store, settings: FitSettings) -> tuple[Calibration, Sweep]:
    """Choose the threshold; nothing is written.

    Parameters
    ----------
    store
        Where the scores are.
    settings
        What it is chosen by.

    Returns
    -------
    Calibration, Sweep
        The outcome, and the counts at every threshold that was tried.

    Raises
    ------
    InputError
        A slide that is to choose can't be used, or there is nothing to choose by: a threshold of fewer slides than
        were named would be another one, so none is chosen.
    """
    wanted = read_parts(settings.splits).parts()[settings.part]
    stored = set(store.slides)
    slides = [store[slide_id] for slide_id in wanted if slide_id in stored]
    scored = [slide for slide in slides if scored_grid(slide, settings.choice) is not None]
    if not scored:
        raise InputError(
            f"none of the {len(wanted)} {settings.part} slides of {settings.splits} has scores "
            f"{settings.choice.run} in {store.url}: score them first, or check --score and --splits"
        )
    choice, made_by = _what_is_scored(scored, settings.choice)
    truths = settings.truth.open()
    kept, without_truth, notes = list[_FitSlide](), list[str](), list[str]()
    for slide in scored:
        score = read_score(slide, choice)
        truth = truths.of(score)
        if truth is None:
            without_truth.append(slide.slide_id)
        else:
            kept.append(_FitSlide(score, _finite_zscores(score, settings.zscore), truth.tiles))
            notes.extend(f"{slide.slide_id}: {note}" for note in truth.notes)
    if not any(each.truth.any() for each in kept):
        raise InputError(
            f"none of the {len(kept)} {settings.part} slides with truth in {settings.truth.path} has a positive tile: "
            "there is nothing to choose a threshold by; check --truth and --positive-from, or give a --threshold"
        )
    z = np.concatenate([each.z for each in kept])
    positive = np.concatenate([each.truth for each in kept])
    chosen = choose_threshold(z, positive, settings.metric)
    useless = hardly_better_than_all(chosen.overlap, settings.metric)
    if useless is not None:
        notes.append(f"the threshold is of little use: {useless}")
    learned = [each.score.slide.slide_id for each in kept if each.learned]
    if learned:
        notes.append(
            f"{counted(len(learned), 'slide')} of those that chose the threshold trained the model ({some(learned)}): "
            "on new slides scores may lie elsewhere"
        )
    cleaned = [_after_morphology(each, chosen.value, settings.morphology) for each in kept]
    fit = FitSummary(
        settings.part,
        tuple(each.score.slide.slide_id for each in kept),
        tuple(without_truth),
        tuple(sorted(set(wanted) - {slide.slide_id for slide in scored})),
        settings.truth.positive_from,
        chosen.overlap,
        reduce(Overlap.__add__, cleaned),
        chosen.at_end,
        tuple(notes),
    )
    calibration = Calibration(
        choice, settings.zscore, chosen.value, settings.metric, settings.morphology, fit, made_by
    )
    return calibration, sweep(z, positive, Z_THRESHOLDS)


def made_by_of(score_attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a score group's provenance must be equal for one threshold to fit, as far as it says."""
    provenance = score_attrs[names.PROVENANCE]
    return {
        key: {k: v for k, v in provenance[key].items() if k not in _OF_THE_RUN}
        for key in _MADE_BY
        if isinstance(provenance.get(key), Mapping)
    }


def _what_is_scored(
    slides: list[SlideView], choice: ScoreChoice
) -> tuple[ScoreChoice, dict[str, Any]]:
    """Return the choice with grid, array and class named, and what made the scores: the same on all slides."""
    grids = {slide.slide_id: scored_grid(slide, choice) for slide in slides}
    first = slides[0]
    others = [slide_id for slide_id, grid in grids.items() if grid != grids[first.slide_id]]
    if others:
        raise InputError(
            f"scores {choice.run} of {some(others)} are on another grid than those of {first.slide_id} "
            f"({grids[first.slide_id]}): name one with --grid"
        )
    score = read_score(first, choice)
    found = replace(choice, array=score.array, class_name=score.class_name, grid=score.grid)
    made_by = {
        slide.slide_id: made_by_of(slide.run_attrs(score.grid, names.SCORES, choice.run))
        for slide in slides
    }
    others = [slide_id for slide_id, made in made_by.items() if made != made_by[first.slide_id]]
    if others:
        raise InputError(
            f"scores {choice.run} of {some(others)} are of another model or stain normalization than those of "
            f"{first.slide_id}: score all slides by one model"
        )
    return found, made_by[first.slide_id]


def _finite_zscores(score: SlideScore, how: ZScore) -> npt.NDArray[np.float32]:
    z = zscores(score.values, how)
    if not z.n_scored:
        raise InputError(
            f"scores {score.run}/{score.array} of slide {score.slide.slide_id} have no finite number, so it can't "
            "help to choose a threshold: score it again, or take it out of the splits"
        )
    return z.values


def _after_morphology(each: _FitSlide, threshold: float, spec: MorphologySpec) -> Overlap:
    table = each.score.table
    shape = LatticePlace.of(each.score.slide, each.score.grid).shape
    mask = cleaned_tiles(above(each.z, threshold), table.row, table.col, shape, spec)
    return Overlap.of(mask[table.row, table.col], each.truth)
