"""How well a score tells positive tiles from negative ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from jobs.evaluation.truth import Truth, open_truth
from jobs.score_reader import ScoreChoice, SlideScore, read_score, scored_slides
from models.metrics import roc_auc
from store_schema.errors import SlidestreamError
from store_schema.store import Store


@dataclass(frozen=True)
class TileSettings:
    """What is judged, by which truth.

    Attributes
    ----------
    choice
        Which number of which run; more of it means positive.
    truth
        Where the truth is.
    positive_from
        A tile is positive if more of its area than this is.
    without_truth
        ``skip`` leaves slides without truth out of the metrics; ``negative`` takes all their tiles for negative,
        which is right where masks were drawn for all slides that have anything to draw.
    slides
        Only these; empty takes all that have the run.
    """

    choice: ScoreChoice
    truth: Path
    positive_from: float = 0.5
    without_truth: Literal["skip", "negative"] = "skip"
    slides: tuple[str, ...] = ()


@dataclass(frozen=True)
class TileMetrics:
    """How well tiles are told apart.

    Attributes
    ----------
    slide_id
        The slide; empty for tiles of several.
    n_tiles, n_positive
        Tiles with a score and a truth.
    n_without_score
        Tiles left out because their score is NaN.
    auc_roc, auc_pr
        Areas under the ROC curve and (as average precision, without interpolation) under the precision-recall curve;
        None where all tiles are of one kind.
    """

    slide_id: str
    n_tiles: int
    n_positive: int
    n_without_score: int
    auc_roc: float | None
    auc_pr: float | None


@dataclass(frozen=True)
class TileEvaluation:
    """What came of it.

    Attributes
    ----------
    slides
        One a slide with truth.
    pooled
        All their tiles together: says something only of scores that mean the same on all slides (a probability,
        an attention logit), not of an attention that sums to 1 on each.
    mean_auc_roc, mean_auc_pr
        Means over the slides that have both kinds of tiles; None where there are none.
    without_truth
        Slides that have the score but no mask.
    problems
        Slide id → why it could not be judged.
    """

    slides: tuple[TileMetrics, ...]
    pooled: TileMetrics | None
    mean_auc_roc: float | None
    mean_auc_pr: float | None
    without_truth: tuple[str, ...]
    problems: dict[str, str]


def evaluate_tiles(store: Store, settings: TileSettings) -> TileEvaluation:
    """Judge a score tile by tile.

    Parameters
    ----------
    store
        Where the scores are.
    settings
        What to judge by what.

    Raises
    ------
    NotInStoreError
        No slide has the run.
    InputError
        There is no such truth.
    """
    known = open_truth(settings.truth)
    slides = scored_slides(store, settings.choice, settings.slides)
    judged, without, problems = [], [], dict[str, str]()
    every: list[tuple[npt.NDArray[np.floating], npt.NDArray[np.bool_]]] = []
    for slide in slides:
        try:
            score = read_score(slide, settings.choice)
            truth = tile_truth(score, known, settings)
        except SlidestreamError as error:
            problems[slide.slide_id] = str(error)
            continue
        if truth is None:
            without.append(slide.slide_id)
            continue
        judged.append(tile_metrics(slide.slide_id, score.values, truth))
        every.append((score.values, truth))
    pooled = None
    if every:
        values, truths = (np.concatenate(parts) for parts in zip(*every, strict=True))
        pooled = tile_metrics("", values, truths)
    return TileEvaluation(
        tuple(judged),
        pooled,
        _mean([metrics.auc_roc for metrics in judged]),
        _mean([metrics.auc_pr for metrics in judged]),
        tuple(without),
        problems,
    )


def tile_truth(
    score: SlideScore, truth: Truth, settings: TileSettings
) -> npt.NDArray[np.bool_] | None:
    """Return which tiles are positive, bool (tile,); None where nothing is known of the slide."""
    found = truth.tiles(score.slide.record, score.table, score.tile_level0, settings.positive_from)
    if found is None and settings.without_truth == "negative":
        return np.zeros(len(score.table), dtype=bool)
    return found


def tile_metrics(
    slide_id: str, values: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]
) -> TileMetrics:
    """Judge tiles.

    Parameters
    ----------
    slide_id
        Whose they are.
    values
        float (tile,); NaN where there is no score.
    truth
        bool (tile,).
    """
    known = np.isfinite(values)
    kept, positive = values[known], truth[known]
    both = bool(positive.any() and not positive.all())
    if both:
        from sklearn.metrics import average_precision_score

        areas = roc_auc(kept, positive), float(average_precision_score(positive, kept))
    return TileMetrics(
        slide_id,
        int(known.sum()),
        int(positive.sum()),
        int((~known).sum()),
        *(areas if both else (None, None)),
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
