"""``metrics.json`` of a fold and of a cross-validation: one stable schema, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

SCHEMA: Final = 1
FOLD_KIND: Final = "mil-fold"
CV_KIND: Final = "mil-cv"

SUMMARIZED: Final = {
    "auc": "AUC",
    "average_precision": "AP",
    "f1": "F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced acc",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ece": "ECE",
}
"""Metric → heading."""

LEAKY_SELECTION: Final = "the selection has seen held-out slides"
"""Flag of a fold, and kind of its warning; see :mod:`jobs.mil.selection_leak`."""

_BIAS = 0.5  # predicted less than half, or more than twice, as often as it is there


def failed_fold(
    model: str,
    fold: int,
    repeat: int,
    protocol: str,
    reason: str,
    message: str,
    traceback: str | None = None,
) -> dict[str, Any]:
    """Return the metrics of a fold that came to nothing.

    Parameters
    ----------
    model, fold, repeat, protocol
        Which one.
    reason, message
        Code and sentence of what went wrong.
    traceback
        Of an error that is none of ours.
    """
    return {
        "kind": FOLD_KIND,
        "schema": SCHEMA,
        "status": "failed",
        "error": {"reason": reason, "message": message, "traceback": traceback},
        "model": model,
        "fold": fold,
        "repeat": repeat,
        "protocol": protocol,
        "leaky": protocol == "published",
        "val": None,
        "test": None,
        "warnings": [],
        "flags": [f"failed: {message}"],
    }


def flags_of(test: Mapping[str, Any], class_names: Sequence[str]) -> list[str]:
    """Say what is wrong with a fold's predictions, most serious first; empty when nothing is.

    Parameters
    ----------
    test
        Metrics of the test fold.
    class_names
        Of the task.
    """
    predicted, actual = class_counts(test, class_names)
    at = "" if test["threshold"] is None else f" at threshold {shown(test['threshold'])}"
    found = [f"no class {name} in the test fold" for name in class_names if not actual[name]]
    used = [name for name in class_names if predicted[name]]
    if len(used) == 1 and len(class_names) > 1:
        return [*found, f"only class {used[0]} is predicted{at}"]
    for name in class_names:
        if actual[name] and predicted[name] < _BIAS * actual[name]:
            found.append(
                f"biased against class {name}: predicted {predicted[name]}, actual {actual[name]}{at}"
            )
    return found


def class_counts(
    metrics: Mapping[str, Any], class_names: Sequence[str]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return class → times predicted, and class → times there."""
    sides = []
    for key in ("predicted_per_class", "actual_per_class"):
        counts = metrics[key]
        if not isinstance(counts, Mapping):
            counts = dict(zip(class_names, counts, strict=True))
        sides.append({name: int(counts[name]) for name in class_names})
    return sides[0], sides[1]


def chosen_epoch(fold: Mapping[str, Any]) -> str:
    """Write which epoch was chosen, and of how many: from 1, as everywhere that people read."""
    return f"{fold['epoch']['best'] + 1} of {fold['epoch']['trained']}"


def threshold_text(fold: Mapping[str, Any]) -> str:
    """Write the threshold of a finished fold, and how many bags it was chosen on."""
    threshold = fold["threshold"]
    chosen_on = threshold["chosen_on"]
    if chosen_on is None:
        return shown(threshold["value"])
    return f"{shown(threshold['value'])} on {fold[chosen_on]['n']} bags"


def holds_at_an_end(warning: Mapping[str, Any], fold: Mapping[str, Any]) -> bool:
    """Whether a warning is of the data or of the last epoch; others have passed."""
    return (
        warning["first_epoch"] in (None, 0) or warning["last_epoch"] == fold["epoch"]["trained"] - 1
    )


def has_failed(fold: Mapping[str, Any]) -> bool:
    """Whether a fold gives no full result: it raised, or its test fold lacks a class."""
    if fold["status"] == "failed":
        return True
    if fold["test"] is None:  # the split has none
        return False
    _, actual = class_counts(fold["test"], fold["class_names"])
    return not all(actual.values())


def summarize(folds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float | int | None]]:
    """Return mean and sample standard deviation (ddof 1) of the test metrics over folds.

    Parameters
    ----------
    folds
        Metrics of folds; failed ones, and metrics that a fold does not have, don't count.

    Returns
    -------
    dict
        Metric → mean, sd (None of fewer than two), n, min, max.
    """
    summary: dict[str, dict[str, float | int | None]] = {}
    for key in SUMMARIZED:
        values = [
            float(fold["test"][key])
            for fold in folds
            if fold["test"] is not None and fold["test"].get(key) is not None
        ]
        n = len(values)
        mean = math.fsum(values) / n if n else None
        sd = None
        if n > 1 and mean is not None:
            sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
        summary[key] = {
            "mean": mean,
            "sd": sd,
            "n": n,
            "min": min(values, default=None),
            "max": max(values, default=None),
        }
    return summary


def shown(value: float | None, digits: int = 3) -> str:
    """Write a metric, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def shown_mean(entry: Mapping[str, float | int | None]) -> str:
    """Write mean ± sd."""
    mean, sd = entry["mean"], entry["sd"]
    return shown(mean) if sd is None else f"{shown(mean)} ± {shown(sd)}"
