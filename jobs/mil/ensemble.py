"""Which models judge a bag, and the mean of what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.mil.trained import TrainedFold
from models.predict import BagPrediction

Floats = npt.NDArray[np.float32]


def judges_of(run: Sequence[TrainedFold], slide_ids: Sequence[str]) -> list[TrainedFold]:
    """Choose the models of one run that judge a bag.

    A bag that was tested in the run is judged by the models that had it in their test fold and never saw it before
    (one, or one a repeat); any other by all of the run's models.

    Parameters
    ----------
    run
        The run's models.
    slide_ids
        Slides of the bag.
    """
    unseen = [fold for fold in run if fold.part_of(slide_ids) == "test"]
    return unseen or list(run)


@dataclass(frozen=True)
class Judgement:
    """What models together say of a bag of N tiles and C classes.

    Attributes
    ----------
    probabilities
        float32 (C,).
    attention, attention_logits
        float32 (N,) or (N, C).
    tile_probabilities
        float32 (N, C), None unless all models have an opinion of single tiles.
    threshold
        Mean of the models', None where the likeliest class is predicted.
    """

    probabilities: Floats
    attention: Floats
    attention_logits: Floats
    tile_probabilities: Floats | None
    threshold: float | None


def mean_of_runs(
    runs: Sequence[Sequence[TrainedFold]], said: Sequence[Sequence[BagPrediction]]
) -> Judgement:
    """Average what models say: over each run's models, then over the runs.

    Parameters
    ----------
    runs
        The models that judged, run by run.
    said
        What they said, in the same order. A single prediction is returned bit for bit.
    """
    thresholds = [[fold.threshold for fold in run] for run in runs]
    flat = [value for run in thresholds for value in run if value is not None]
    complete = len(flat) == sum(map(len, thresholds))
    opinions = [[each.instance_probabilities for each in run] for run in said]
    tiles = [[values for values in run if values is not None] for run in opinions]
    all_have = [len(run) for run in tiles] == [len(run) for run in opinions]
    return Judgement(
        _mean([[each.probabilities for each in run] for run in said]),
        _mean(_same_shape([[each.attention for each in run] for run in said])),
        _mean(_same_shape([[each.attention_logits for each in run] for run in said])),
        _mean(tiles) if all_have else None,
        float(np.mean([np.mean([v for v in run if v is not None]) for run in thresholds]))
        if complete
        else None,
    )


def _mean(values: Sequence[Sequence[Floats]]) -> Floats:
    if len(values) == 1 and len(values[0]) == 1:
        return values[0][0]
    mean: npt.NDArray[Any] = np.mean([np.mean(run, axis=0, dtype=float) for run in values], axis=0)
    return mean.astype(np.float32)


def _same_shape(values: Sequence[Sequence[Floats]]) -> Sequence[Sequence[Floats]]:
    """Repeat an attention (N,) for all classes where another model has one of (N, C)."""
    n_classes = max((each.shape[1] for run in values for each in run if each.ndim > 1), default=0)
    if not n_classes:
        return values
    return [
        [each if each.ndim > 1 else np.repeat(each[:, None], n_classes, axis=1) for each in run]
        for run in values
    ]
