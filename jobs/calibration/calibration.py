"""A calibration: how raw scores of one kind become a mask, and what that was chosen by; as JSON on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from jobs.calibration.morphology import Connectivity, MorphologySpec
from jobs.calibration.threshold import Metric
from jobs.calibration.zscore import ZScore
from jobs.score_reader import ScoreChoice
from models.overlap import Overlap
from store_schema.errors import InputError, StorageError

CALIBRATION_FILE: Final = "calibration.json"
_KIND: Final = "calibration"
_SCHEMA: Final = 1


@dataclass(frozen=True)
class FitSummary:
    """What a threshold was chosen by.

    Attributes
    ----------
    split
        Part of the splits.
    slides
        That chose it, pooled.
    without_truth, without_scores
        Slides of the part that were left out.
    positive_from
        A tile is positive if more of its area than this is.
    flagged
        Counts at the threshold, over the slides that chose it: not what new slides will give.
    cleaned
        The same after morphology.
    at_end
        Whether the threshold is the lowest or highest that was tried.
    notes
        What should be known of the truth of single slides, in sentences.
    """

    split: str
    slides: tuple[str, ...]
    without_truth: tuple[str, ...]
    without_scores: tuple[str, ...]
    positive_from: float
    flagged: Overlap
    cleaned: Overlap
    at_end: bool
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it JSON-able, with the ratios that its counts come to."""
        return {
            **asdict(self),
            "slides": list(self.slides),
            "without_truth": list(self.without_truth),
            "without_scores": list(self.without_scores),
            "flagged": overlap_json(self.flagged),
            "cleaned": overlap_json(self.cleaned),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Calibration:
    """How scores become a mask.

    Attributes
    ----------
    choice
        The number it is for: run, array, class, and the grid that it was fitted on.
    zscore
        How a slide's scores are normalized.
    threshold
        On z-scores: a tile is flagged if its own is greater. None looks for each slide's own in its truth: an upper
        bound for what any threshold can do, and no method.
    metric
        What the threshold was chosen by, None where it was given.
    morphology
        What is done to the flagged tiles.
    fit
        None where the threshold was given, or is each slide's own.
    made_by
        Model and stain normalization of the scores that it was fitted on, as far as their provenance says: it is
        refused for scores of another.
    """

    choice: ScoreChoice
    zscore: ZScore = "mean-std"
    threshold: float | None = None
    metric: Metric | None = None
    morphology: MorphologySpec = field(default_factory=MorphologySpec)
    fit: FitSummary | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_upper_bound(self) -> bool:
        """Whether thresholds look at the truth of the slides that they are for."""
        return self.threshold is None

    @property
    def chosen_on(self) -> str:
        """What the threshold was chosen on, for attributes and lines."""
        if self.is_upper_bound:
            return "the truth of this very slide (an upper bound)"
        return "given" if self.fit is None else f"{len(self.fit.slides)} {self.fit.split} slides"

    def to_json(self) -> dict[str, Any]:
        """Return it JSON-able."""
        return {
            "schema": _SCHEMA,
            "kind": _KIND,
            "score": asdict(self.choice),
            "zscore": self.zscore,
            "threshold": self.threshold,
            "metric": self.metric,
            "upper_bound": self.is_upper_bound,
            "morphology": self.morphology.provenance,
            "fit": None if self.fit is None else self.fit.to_json(),
            "made_by": dict(self.made_by),
        }


def overlap_json(counts: Overlap) -> dict[str, Any]:
    """Return counts and the ratios they come to."""
    return {
        **asdict(counts),
        "iou": counts.iou,
        "dice": counts.dice,
        "precision": counts.precision,
        "recall": counts.recall,
        "specificity": counts.specificity,
        "youden": counts.youden,
    }


def write_calibration(directory: Path, calibration: Calibration) -> None:
    """Write ``calibration.json``; StorageError if it can't be."""
    path = directory / CALIBRATION_FILE
    try:
        path.write_text(json.dumps(calibration.to_json(), indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise StorageError(f"{path} can't be written ({error.strerror})") from error


def read_calibration(directory: Path) -> Calibration:
    """Read the calibration that a run of ``slidestream calibrate`` left.

    Raises
    ------
    InputError
        There is none, it is garbled, or it is an upper bound, which can't be used on other slides.
    """
    path = directory / CALIBRATION_FILE
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} can't be read ({error.strerror}): give the folder of a run of `slidestream calibrate`"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}): calibrate again") from error
    if not isinstance(said, dict) or (said.get("kind"), said.get("schema")) != (_KIND, _SCHEMA):
        raise InputError(
            f"{path} is no calibration of this version of slidestream: calibrate again"
        )
    if said.get("upper_bound"):
        raise InputError(
            f"{path} is an upper bound, whose thresholds looked at the truth of their slides: there is nothing in it "
            "for others; calibrate with --splits"
        )
    try:
        found = _parsed(said)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is garbled ({error!r}): calibrate again") from error
    return found


def _parsed(said: Mapping[str, Any]) -> Calibration:
    threshold = float(said["threshold"])
    if not math.isfinite(threshold):
        raise ValueError(f"a threshold of {threshold}")
    score, fit = said["score"], said["fit"]
    return Calibration(
        ScoreChoice(
            str(score["run"]), _text(score["array"]), _text(score["class_name"]), _text(score["grid"])
        ),
        _one_of(said["zscore"], ZScore),
        threshold,
        None if said["metric"] is None else _one_of(said["metric"], Metric),
        _morphology(said["morphology"]),
        None if fit is None else _fit(fit),
        dict(said["made_by"]),
    )  # fmt: skip


def _morphology(said: Mapping[str, Any]) -> MorphologySpec:
    opening, closing, min_tiles = (int(said[key]) for key in ("opening", "closing", "min_tiles"))
    if min(opening, closing, min_tiles) < 0:
        raise ValueError("a negative number of tiles")
    return MorphologySpec(
        opening, closing, min_tiles, bool(said["fill_holes"]), _one_of(said["connectivity"], Connectivity)
    )  # fmt: skip


def _fit(said: Mapping[str, Any]) -> FitSummary:
    texts = {
        key: tuple(str(each) for each in said[key])
        for key in ("slides", "without_truth", "without_scores", "notes")
    }
    return FitSummary(
        str(said["split"]),
        texts["slides"],
        texts["without_truth"],
        texts["without_scores"],
        float(said["positive_from"]),
        _overlap(said["flagged"]),
        _overlap(said["cleaned"]),
        bool(said["at_end"]),
        texts["notes"],
    )


def _overlap(said: Mapping[str, Any]) -> Overlap:
    return Overlap(int(said["tp"]), int(said["fp"]), int(said["fn"]), int(said["tn"]))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _one_of(value: Any, literal: Any) -> Any:
    if value not in get_args(literal):
        raise ValueError(f"{value!r} is none of {get_args(literal)}")
    return value
