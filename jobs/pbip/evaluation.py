"""How well a segmentation tells classes apart: pixel by pixel, tile by tile, slide by slide, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np

from jobs.evaluation.bootstrap import Bootstrap, Drawn, Intervals
from jobs.pbip.judged_slide import JudgedSlide
from models.confusion import METRICS, Confusion
from store_schema.errors import SlidestreamError
from store_schema.slide_view import SlideView

Scores: TypeAlias = Mapping[str, float | None]

ACCURACY: Final = "accuracy"


@dataclass(frozen=True)
class PbipEvaluation:
    """What came of it.

    Attributes
    ----------
    class_names
        In their order.
    background
        Position of the class that isn't looked for.
    slides
        Those that were judged; at least one.
    published
        Whether the public protocol judged, which tells the maps what the truth of each tile holds.
    bootstrap
        How intervals are made.
    without_truth
        Slides of which nothing is known.
    lacking
        Slides of the split that have no such masks, or tiles.
    problems
        Slide id → why it could not be judged.
    """

    class_names: tuple[str, ...]
    background: int
    slides: tuple[JudgedSlide, ...]
    published: bool
    bootstrap: Bootstrap
    without_truth: tuple[str, ...]
    lacking: tuple[str, ...]
    problems: Mapping[str, str]

    @property
    def slide_ids(self) -> list[str]:
        """Of the judged slides."""
        return [slide.slide_id for slide in self.slides]

    @property
    def gated(self) -> tuple[str, ...]:
        """Slides whose result was told their labels."""
        return tuple(slide.slide_id for slide in self.slides if slide.gated)

    @cached_property
    def pooled(self) -> Confusion:
        """All pixels."""
        return Confusion.sum([slide.confusion for slide in self.slides])

    @cached_property
    def of_slides(self) -> Scores:
        """Means over slides, see :func:`mean_scores`."""
        return mean_scores([slide.confusion for slide in self.slides], self.class_names)

    @cached_property
    def of_tiles(self) -> Scores:
        """Means over all tiles of which something is known."""
        tiles = [tile for slide in self.slides for tile in slide.of_tiles if tile.n_pixels]
        return mean_scores(tiles, self.class_names)

    @cached_property
    def intervals(self) -> Intervals:
        """95 % intervals of :func:`scores_of` all pixels and, as ``slides_…``, of the means over slides."""
        confusions = [slide.confusion for slide in self.slides]
        return self.bootstrap.intervals(self.slide_ids, _measure(confusions, self.class_names))


def scores_of(confusion: Confusion, class_names: Sequence[str]) -> dict[str, float | None]:
    """Return all numbers of some pixels by name.

    Returns
    -------
    dict
        ``iou``, ``dice``, ``precision``, ``recall`` (means over the classes that are there), the same as
        ``weighted_…`` (by pixels of truth) and as ``<class>/…`` (None of a class that isn't there); ``accuracy``.
    """
    found: dict[str, float | None] = {metric: confusion.macro(metric) for metric in METRICS}
    found |= {f"weighted_{metric}": confusion.weighted(metric) for metric in METRICS}
    found[ACCURACY] = confusion.accuracy
    present = confusion.present
    for k, name in enumerate(class_names):
        overlap = confusion.overlaps[k]
        for metric in METRICS:
            value: float | None = getattr(overlap, metric)
            found[f"{name}/{metric}"] = (value or 0.0) if k in present else None
    return found


def mean_scores(confusions: Sequence[Confusion], class_names: Sequence[str]) -> Scores:
    """Return the means of :func:`scores_of`, each over the slides, or tiles, where it is defined."""
    if not confusions:
        return {}
    each = [scores_of(confusion, class_names) for confusion in confusions]
    return _means({name: [scores[name] for scores in each] for name in each[0]})


def _means(columns: Mapping[str, Sequence[float | None]]) -> dict[str, float | None]:
    known = {name: [v for v in column if v is not None] for name, column in columns.items()}
    return {name: float(np.mean(column)) if column else None for name, column in known.items()}


def _measure(
    confusions: Sequence[Confusion], class_names: Sequence[str]
) -> Callable[[Drawn], Scores]:
    counts = np.stack([confusion.counts for confusion in confusions])
    each = [scores_of(confusion, class_names) for confusion in confusions]

    def measure(drawn: Drawn) -> Scores:
        pooled = scores_of(Confusion(counts[drawn].sum(axis=0)), class_names)
        of_slides = _means({name: [each[i][name] for i in drawn.tolist()] for name in pooled})
        return pooled | {f"slides_{name}": value for name, value in of_slides.items()}

    return measure


@dataclass(frozen=True)
class Judged:
    """What came of judging slide after slide.

    Attributes
    ----------
    slides
        Those that could be judged.
    without_truth
        Those of which nothing is known.
    problems
        Slide id → why it could not be.
    """

    slides: tuple[JudgedSlide, ...]
    without_truth: tuple[str, ...]
    problems: Mapping[str, str]


def judge_slides(
    slides: Sequence[SlideView],
    judge: Callable[[SlideView], JudgedSlide | None],
    tell: Callable[[str], None] = lambda _: None,
) -> Judged:
    """Judge slide after slide; one that can't be judged doesn't stop the others.

    Parameters
    ----------
    slides
        Which.
    judge
        Counts one; None where nothing is known of it.
    tell
        Takes a line of progress.
    """
    found, without, problems = list[JudgedSlide](), list[str](), dict[str, str]()
    for number, slide in enumerate(slides, start=1):
        try:
            judged = judge(slide)
        except SlidestreamError as error:
            if error.fatal:
                raise
            problems[slide.slide_id] = str(error)
            continue
        if judged is None:
            without.append(slide.slide_id)
        else:
            found.append(judged)
        tell(f"judged {number}/{len(slides)}: {slide.slide_id}")
    return Judged(tuple(found), tuple(without), problems)
