"""Predictions of all test folds taken together: pooled metrics, and intervals by drawing patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jobs.mil.predictions import Prediction
from models.metrics import bootstrap_intervals, classification_metrics, scores_of
from store_schema.errors import InputError
from store_schema.labels import some

if TYPE_CHECKING:
    from models.slide_model import TaskKind

# of probabilities; all others are of what was predicted, since each fold has its own threshold
_OF_PROBABILITIES = ("auc", "average_precision", "ece")


def pooled_metrics(
    rows: Sequence[Prediction],
    class_names: Sequence[str],
    task: TaskKind,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, dict[str, float | None]]]:
    """Judge out-of-fold predictions together.

    Parameters
    ----------
    rows
        Of test folds, with labels. A slide that repeats predict several times counts each time; the bootstrap draws
        patients with all their rows.
    class_names, task
        Of the models.
    resamples, seed
        Of the bootstrap.

    Returns
    -------
    tuple
        Metrics of all rows, and metric → low, high of its 95 % interval.
    """
    p = np.array([row.probabilities for row in rows])
    said = _one_hot([row.predicted for row in rows], class_names)
    truth = _one_hot([row.label for row in rows], class_names)
    targets: npt.NDArray[Any] = (
        truth.astype(np.float32) if task == "multilabel" else truth.argmax(1).astype(np.int64)
    )

    def judge(index: npt.NDArray[np.int64]) -> dict[str, Any]:
        metrics = classification_metrics(said[index], targets[index], class_names, task)
        ranked = classification_metrics(p[index], targets[index], class_names, task)
        return {**metrics, **{name: ranked[name] for name in _OF_PROBABILITIES}}

    groups = [row.patient_id or row.slide_id for row in rows]
    intervals = bootstrap_intervals(lambda index: scores_of(judge(index)), groups, resamples, seed)
    found = {name: {"low": each.low, "high": each.high} for name, each in intervals.items()}
    return {**judge(np.arange(len(rows))), "threshold": None}, found


def _one_hot(said: Sequence[str], class_names: Sequence[str]) -> npt.NDArray[np.float64]:
    """float64 (row, class), 1 for the classes that are named."""
    number = {name: i for i, name in enumerate(class_names)}
    marks = np.zeros((len(said), len(class_names)))
    for row, text in enumerate(said):
        named = [name for name in text.split(";") if name]
        unknown = [name for name in named if name not in number]
        if unknown:
            raise InputError(
                f"the predictions are of the classes {some(class_names, 8)}, and a slide is said to be {unknown[0]!r}: "
                "give --labels that name the classes so"
            )
        marks[row, [number[name] for name in named]] = 1
    return marks


def truth_of(
    rows: Sequence[Prediction], class_names: Sequence[str], task: TaskKind
) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Return probabilities (row, class), and targets as of a bag source."""
    truth = _one_hot([row.label for row in rows], class_names)
    p = np.array([row.probabilities for row in rows])
    return p, truth if task == "multilabel" else truth.argmax(1)


def interval_text(interval: Mapping[str, float | None] | None) -> str:
    """Write an interval, or nothing where there is none."""
    if interval is None or interval["low"] is None or interval["high"] is None:
        return ""
    return f"[{interval['low']:.3f}, {interval['high']:.3f}]"
