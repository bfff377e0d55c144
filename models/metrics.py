"""How good predictions of bags are, in one schema for training, scoring and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from store_schema.errors import InputError

if TYPE_CHECKING:
    from models.slide_model import TaskKind

Floats: TypeAlias = npt.NDArray[np.floating]
Metrics: TypeAlias = dict[str, object]

ECE_BINS: Final = 10
# what can be averaged over folds and given intervals; the other keys are counts and settings
SCORES: Final = (
    "auc",
    "average_precision",
    "f1",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "ece",
)


def classification_metrics(
    probabilities: Floats,
    targets: npt.NDArray[np.int64] | npt.NDArray[np.float32],
    class_names: Sequence[str],
    task: TaskKind,
    threshold: float | None = None,
) -> Metrics:
    """Judge predictions of n bags and C classes.

    A multi-class task of two classes is judged as binary: its scores are of class 1, which is
    predicted where its probability reaches the threshold. With more classes the most probable one is
    predicted, and AUC, average precision, F1, sensitivity and specificity are means over the classes,
    each against the rest. A multi-label task is judged class by class and averaged; its accuracy is
    the share of bags with every label right.

    Parameters
    ----------
    probabilities
        float (n, C).
    targets
        int64 (n,), or float (n, C) of a multi-label task.
    class_names
        Of the C classes.
    task
        Whether the classes exclude each other.
    threshold
        On probabilities of a binary or multi-label task; None is 0.5.

    Returns
    -------
    dict
        JSON, always the same keys: ``n``; those of ``SCORES`` (None where a class is missing that they
        need, and a sentence in ``notes``); ``confusion_matrix`` (true, predicted), one (2, 2) a class of
        a multi-label task; ``predicted_per_class`` and ``actual_per_class``; ``threshold`` (None where
        there is none); ``notes``.

    Raises
    ------
    InputError
        If there is nothing to judge, shapes don't match, or a probability is not finite.
    """
    p = np.asarray(probabilities, np.float64)
    n_classes = len(class_names)
    rows = (len(targets),) if task == "multiclass" else (len(targets), n_classes)
    if p.shape != (len(targets), n_classes) or targets.shape != rows or not len(targets):
        raise InputError(
            f"Probabilities {p.shape} and targets {targets.shape} don't fit {n_classes} classes: give one "
            "row a bag, and at least one bag."
        )
    if not np.isfinite(p).all():
        raise InputError("A probability is not finite: look at that bag's features.")
    binary = task == "multiclass" and n_classes == 2
    thresholded = binary or task == "multilabel"
    cut = 0.5 if threshold is None else threshold
    if task == "multilabel":
        truth, said = targets > 0.5, p >= cut
    else:
        label = (p[:, 1] >= cut).astype(np.int64) if binary else p.argmax(1)
        truth, said = (np.eye(n_classes, dtype=bool)[index] for index in (targets, label))
    judged = slice(1, 2) if binary else slice(None)
    classes = [
        _one_class(p[:, c], truth[:, c], said[:, c]) for c in range(n_classes)[judged]
    ]  # per class
    mean = {name: _mean([scores[name] for scores in classes]) for name in classes[0]}
    if task == "multilabel":
        balanced = _mean([_mean([c["sensitivity"], c["specificity"]]) for c in classes])
    elif binary:
        balanced = _mean([mean["sensitivity"], mean["specificity"]])
    else:
        balanced = mean["sensitivity"]
    return {
        "n": len(p),
        **mean,
        "accuracy": float((truth == said).all(1).mean()),
        "balanced_accuracy": balanced,
        "ece": _calibration_error(p, truth, task),
        "confusion_matrix": _confusion(truth, said, task),
        "predicted_per_class": _per_class(said, class_names),
        "actual_per_class": _per_class(truth, class_names),
        "threshold": float(cut) if thresholded else None,
        "notes": _notes(truth, class_names, task),
    }


def scores_of(metrics: Mapping[str, object]) -> dict[str, float | None]:
    """Return the ``SCORES`` of what ``classification_metrics`` returned."""
    return {name: cast("float | None", metrics[name]) for name in SCORES}


def _one_class(
    p: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], said: npt.NDArray[np.bool_]
) -> dict[str, float | None]:
    """Score one class against the rest; None where a quotient is 0/0."""
    n_true, n_false = int(truth.sum()), int((~truth).sum())
    hits = int((truth & said).sum())
    both = n_true > 0 and n_false > 0
    return {
        "auc": roc_auc(p, truth) if both else None,
        "average_precision": _average_precision(p, truth) if both else None,
        "f1": _ratio(2 * hits, n_true + int(said.sum())),
        "sensitivity": _ratio(hits, n_true),
        "specificity": _ratio(int((~truth & ~said).sum()), n_false),
    }


def roc_auc(p: Floats, truth: npt.NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve, ties counted half (Mann & Whitney 1947); both classes are there.

    Parameters
    ----------
    p, truth
        float and bool (n,).
    """
    n_true = int(truth.sum())
    above = rankdata(p)[truth].sum() - n_true * (n_true + 1) / 2
    return float(above / (n_true * (len(p) - n_true)))


def _average_precision(p: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float:
    """Σ (R_k - R_{k-1}) P_k over the distinct scores, from the highest; no interpolation."""
    order = np.argsort(-p, kind="stable")
    last_of_tie = np.append(np.diff(p[order]) != 0, True)
    hits = np.cumsum(truth[order])[last_of_tie]
    said = np.flatnonzero(last_of_tie) + 1
    recall = hits / hits[-1]
    return float((np.diff(recall, prepend=0.0) * hits / said).sum())


def _calibration_error(
    p: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_], task: TaskKind
) -> float:
    """Σ_b |B_b|/n · |accuracy(B_b) - confidence(B_b)| over 10 bins of equal width (Guo et al. 2017).

    Confidence is that of the most probable class; of a multi-label task, each label's probability
    against whether the label is there.
    """
    if task == "multilabel":
        confidence, right = p.ravel(), truth.ravel()
    else:
        confidence, right = p.max(1), truth[np.arange(len(p)), p.argmax(1)]
    bins = np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gap = np.bincount(bins, right - confidence, ECE_BINS)
    return float(np.abs(gap).sum() / len(confidence))


def _confusion(
    truth: npt.NDArray[np.bool_], said: npt.NDArray[np.bool_], task: TaskKind
) -> list[object]:
    if task == "multiclass":
        matrix: list[object] = (truth.T.astype(np.int64) @ said.astype(np.int64)).tolist()
        return matrix
    return [
        [
            [int((t & s).sum()) for s in (~said[:, c], said[:, c])]
            for t in (~truth[:, c], truth[:, c])
        ]
        for c in range(truth.shape[1])
    ]


def _per_class(marks: npt.NDArray[np.bool_], class_names: Sequence[str]) -> dict[str, int]:
    return dict(zip(class_names, marks.sum(0).tolist(), strict=True))


def _notes(truth: npt.NDArray[np.bool_], class_names: Sequence[str], task: TaskKind) -> list[str]:
    counts = truth.sum(0)
    notes = [f"no bag is of class {n}" for n, k in zip(class_names, counts, strict=True) if k == 0]
    if task == "multilabel":
        every = zip(class_names, counts, strict=True)
        notes += [f"every bag is of class {n}" for n, k in every if k == len(truth)]
    return notes


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def choose_threshold(
    p_positive: Floats, y: npt.NDArray[np.int64], how: Literal["youden", "f1", "argmax"]
) -> float | None:
    """Choose the probability from which on class 1 is predicted; on validation data.

    Parameters
    ----------
    p_positive
        float (n,).
    y
        int64 (n,), 0 or 1.
    how
        ``youden``: the most sensitivity + specificity - 1 (Youden 1950). ``f1``: the most F1.
        ``argmax``: 0.5.

    Returns
    -------
    float or None
        In the middle between two neighbouring probabilities (of equally good ones the nearest to
        0.5); None where a class is missing, so that nothing can be chosen.
    """
    if how == "argmax":
        return 0.5
    truth = y == 1
    n_true, n_false = int(truth.sum()), int((~truth).sum())
    if not n_true or not n_false:
        return None
    levels = np.unique(np.asarray(p_positive, np.float64))
    cuts = np.concatenate([[levels[0]], (levels[1:] + levels[:-1]) / 2])
    said = n_true + n_false - np.searchsorted(np.sort(p_positive), cuts)
    hits = n_true - np.searchsorted(np.sort(p_positive[truth]), cuts)
    youden = hits / n_true - (said - hits) / n_false
    quality = youden if how == "youden" else 2 * hits / (n_true + said)
    best = np.flatnonzero(np.isclose(quality, quality.max(), rtol=0, atol=1e-12))
    return float(cuts[best[np.abs(cuts[best] - 0.5).argmin()]])


@dataclass(frozen=True)
class Interval:
    """A bootstrap interval of one score.

    Attributes
    ----------
    low, high
        Percentiles 2.5 and 97.5; None where no resample defined the score.
    resamples, skipped
        How many were used; how many were left out since a class was missing in them.
    """

    low: float | None
    high: float | None
    resamples: int
    skipped: int


def bootstrap_intervals(
    metric: Callable[[npt.NDArray[np.int64]], Mapping[str, float | None]],
    groups: Sequence[str],
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Give 95 % percentile intervals by drawing whole groups with replacement (Efron 1979).

    Parameters
    ----------
    metric
        Bag numbers, int64 (k,) with repeats → scores by name, None where undefined; ``scores_of``.
    groups
        Patient of each bag: bags of one patient are not independent.
    n
        Resamples.
    seed
        Of the draws.

    Raises
    ------
    InputError
        If there are no groups or no resamples.
    """
    if not len(groups) or n < 1:
        raise InputError("There is nothing to resample: give at least one bag and one resample.")
    names, of_bag = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    members = np.split(np.argsort(of_bag, kind="stable"), np.cumsum(np.bincount(of_bag))[:-1])
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for _ in range(n):
        drawn = rng.integers(len(names), size=len(names))
        scores = metric(np.concatenate([members[group] for group in drawn]))
        for name, score in scores.items():
            values = found.setdefault(name, [])
            if score is not None:
                values.append(score)
    return {name: _interval(values, n) for name, values in found.items()}


def _interval(values: Sequence[float], n: int) -> Interval:
    if not values:
        return Interval(None, None, 0, n)
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(high), len(values), n - len(values))
