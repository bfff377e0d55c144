"""Lesions found against false alarms a slide: the free-response ROC, as CAMELYON16 defines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from jobs.evaluation.bootstrap import Bootstrap, Drawn, Intervals
from jobs.evaluation.detections import SHUFFLES, Detections, SlideDetections

RATES: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False alarms a slide at which sensitivity is read; the score is its mean over them."""

SCORE: Final = "score"
"""Key of that mean among what intervals are of; the others are the rates."""

_FEW: Final = 20


@dataclass(frozen=True)
class Chance:
    """What the same scores come to, shuffled among the tiles of each slide.

    Attributes
    ----------
    shuffles
        How often.
    at_rates, score
        Means over them, as of :class:`Froc`.
    highest
        The highest score of any.
    """

    shuffles: int
    at_rates: dict[str, float]
    score: float
    highest: float


@dataclass(frozen=True)
class Froc:
    """The curve, of slides together.

    Attributes
    ----------
    n_slides, n_lesions, n_isolated, n_detections
        What it is of; lesions without isolated tumour cells.
    false_alarms, sensitivity
        The curve: false alarms a slide (rising), and the share of lesions that are found.
    at_rates
        Sensitivity at each of :data:`RATES`, between points of the curve linearly, beyond its end that of the end.
    score
        Their mean.
    intervals
        Of the score and of each rate; empty where none were asked for, or can be had.
    chance
        None where it wasn't asked for.
    """

    n_slides: int
    n_lesions: int
    n_isolated: int
    n_detections: int
    false_alarms: tuple[float, ...]
    sensitivity: tuple[float, ...]
    at_rates: dict[str, float]
    score: float
    intervals: Intervals
    chance: Chance | None = None

    @property
    def few_lesions(self) -> bool:
        """Whether there are too few to tell much."""
        return self.n_lesions < _FEW


def froc(slides: Sequence[Detections]) -> Froc | None:
    """Return the curve of slides together, None where they have no lesion.

    Parameters
    ----------
    slides
        All that were judged, those without lesions too: their false alarms count.
    """
    ordered = _Ordered.of(slides)
    once = np.ones(len(slides), np.int64)
    n_lesions = sum(slide.n_lesions for slide in slides)
    if not n_lesions:
        return None
    per_slide, sensitivity = ordered.curve(once)
    at_rates = _at_rates(per_slide, sensitivity)
    return Froc(
        len(slides),
        n_lesions,
        sum(slide.n_isolated for slide in slides),
        sum(len(slide.score) for slide in slides),
        tuple(per_slide.tolist()),
        tuple(sensitivity.tolist()),
        at_rates,
        float(np.mean(list(at_rates.values()))),
        {},
    )


def froc_with_chance(
    slides: Sequence[SlideDetections], bootstrap: Bootstrap | None = None
) -> Froc | None:
    """Return the curve with its intervals, and with what chance gives; None where there is no lesion."""
    found = froc([slide.found for slide in slides])
    if found is None:
        return None
    if bootstrap is not None:
        ordered = _Ordered.of([slide.found for slide in slides])
        ids = [slide.slide_id for slide in slides]
        found = replace(found, intervals=bootstrap.intervals(ids, ordered.drawn))
    shuffled = [froc([slide.shuffled[i] for slide in slides]) for i in range(SHUFFLES)]
    scores = [each.score for each in shuffled if each is not None]
    at_rates = {
        rate: float(np.mean([each.at_rates[rate] for each in shuffled if each is not None]))
        for rate in found.at_rates
    }
    return replace(
        found, chance=Chance(SHUFFLES, at_rates, float(np.mean(scores)), float(np.max(scores)))
    )


@dataclass(frozen=True)
class _Ordered:
    """Detections of slides in the order of their scores, so that slides can be drawn and counted at once.

    Attributes
    ----------
    alarm_place, alarm_slide, hit_place, hit_slide
        int (detection,): place of the score among all different ones, from the highest, and number of the slide; of
        false alarms, and of the best detection of each lesion that was found.
    n_lesions
        int64 (slide,).
    n_places
        Different scores.
    """

    alarm_place: npt.NDArray[np.intp]
    alarm_slide: npt.NDArray[np.intp]
    hit_place: npt.NDArray[np.intp]
    hit_slide: npt.NDArray[np.intp]
    n_lesions: npt.NDArray[np.int64]
    n_places: int

    @classmethod
    def of(cls, slides: Sequence[Detections]) -> _Ordered:
        alarms = [slide.score[slide.lesion == 0] for slide in slides]
        hits = [_best_of_lesions(slide) for slide in slides]
        every = np.concatenate([np.empty(0), *alarms, *hits])
        levels, place = np.unique(-every, return_inverse=True)
        n_alarms = sum(map(len, alarms))

        def slide_of(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.intp]:
            return np.repeat(np.arange(len(parts)), [len(part) for part in parts])

        n_lesions = np.array([slide.n_lesions for slide in slides], np.int64)
        return cls(
            place[:n_alarms], slide_of(alarms), place[n_alarms:], slide_of(hits), n_lesions, len(levels)
        )  # fmt: skip

    def curve(
        self, times: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return false alarms a slide and sensitivity, of slides that count so many times each, int64 (slide,)."""
        alarms = np.bincount(self.alarm_place, times[self.alarm_slide], self.n_places)
        hits = np.bincount(self.hit_place, times[self.hit_slide], self.n_places)
        return (
            np.concatenate([[0.0], alarms.cumsum() / times.sum()]),
            np.concatenate([[0.0], hits.cumsum() / (times @ self.n_lesions)]),
        )

    def drawn(self, numbers: Drawn) -> dict[str, float | None]:
        """Return sensitivities and score of drawn slides, None where they have no lesion."""
        times = np.bincount(numbers, minlength=len(self.n_lesions))
        if not times @ self.n_lesions:
            return dict.fromkeys((*map(_spelled, RATES), SCORE))
        at_rates = _at_rates(*self.curve(times))
        return {**at_rates, SCORE: float(np.mean(list(at_rates.values())))}


def _at_rates(
    per_slide: npt.NDArray[np.float64], sensitivity: npt.NDArray[np.float64]
) -> dict[str, float]:
    # along the curve as it is drawn; where it is upright, its upper end
    read = np.interp(RATES, per_slide, sensitivity)
    return {_spelled(rate): float(value) for rate, value in zip(RATES, read, strict=True)}


def _spelled(rate: float) -> str:
    return f"{rate:g}"


def _best_of_lesions(slide: Detections) -> npt.NDArray[np.float64]:
    """Return the greatest score in each lesion that was found, float64 (lesion,)."""
    found = slide.lesion > 0
    numbers, which = np.unique(slide.lesion[found], return_inverse=True)
    best = np.full(len(numbers), -np.inf)
    np.maximum.at(best, which, slide.score[found])
    return best
