"""Metrics agree with scikit-learn, say what is undefined, and have intervals that resample patients."""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as sk

from models.metrics import (
    SCORES,
    bootstrap_intervals,
    choose_threshold,
    classification_metrics,
    roc_auc,
    scores_of,
)
from models.slide_model import TaskKind
from store_schema.errors import InputError

Array = npt.NDArray[Any]


def planted(n: int, n_classes: int, seed: int) -> tuple[Array, Array]:
    """Return probabilities with ties, float (n, C), and class indices that follow them loosely."""
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=n)
    y[:n_classes] = np.arange(n_classes)
    p = rng.dirichlet(np.ones(n_classes), n) + 0.7 * np.eye(n_classes)[y]
    p = np.round(p / p.sum(1, keepdims=True), 1) + 1e-3
    return p / p.sum(1, keepdims=True), y


@pytest.mark.parametrize("threshold", [None, 0.7])
@pytest.mark.parametrize("seed", [0, 1])
def test_binary_against_sklearn(seed: int, threshold: float | None) -> None:
    p, y = planted(60, 2, seed)
    found = classification_metrics(p, y, ("no", "yes"), "multiclass", threshold)
    said = (p[:, 1] >= (threshold or 0.5)).astype(int)
    expected = {
        "auc": sk.roc_auc_score(y, p[:, 1]),
        "average_precision": sk.average_precision_score(y, p[:, 1]),
        "f1": sk.f1_score(y, said),
        "accuracy": sk.accuracy_score(y, said),
        "balanced_accuracy": sk.balanced_accuracy_score(y, said),
        "sensitivity": sk.recall_score(y, said),
        "specificity": sk.recall_score(y, said, pos_label=0),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name
    assert found["confusion_matrix"] == sk.confusion_matrix(y, said).tolist()
    assert found["predicted_per_class"] == {"no": int((said == 0).sum()), "yes": int(said.sum())}
    assert found["actual_per_class"] == {"no": int((y == 0).sum()), "yes": int(y.sum())}
    assert (found["n"], found["threshold"], found["notes"]) == (60, threshold or 0.5, [])


def test_multiclass_against_sklearn() -> None:
    p, y = planted(80, 4, 3)
    found = classification_metrics(p, y, tuple("abcd"), "multiclass")
    said = p.argmax(1)
    one_hot = np.eye(4)[y]
    assert found["auc"] == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"))
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(one_hot, p))
    assert found["f1"] == pytest.approx(sk.f1_score(y, said, average="macro"))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, said))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, said))
    assert found["confusion_matrix"] == sk.confusion_matrix(y, said).tolist()
    assert found["threshold"] is None


def test_multilabel_against_sklearn() -> None:
    rng = np.random.default_rng(4)
    y = (rng.random((50, 3)) < 0.4).astype(np.float32)
    p = np.clip(0.5 * y + 0.6 * rng.random((50, 3)), 0, 1)
    said = p >= 0.6
    found = classification_metrics(p, y, tuple("abc"), "multilabel", 0.6)
    assert found["auc"] == pytest.approx(sk.roc_auc_score(y, p))
    assert found["average_precision"] == pytest.approx(sk.average_precision_score(y, p))
    assert found["f1"] == pytest.approx(sk.f1_score(y, said, average="macro"))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, said))
    assert found["confusion_matrix"] == sk.multilabel_confusion_matrix(y, said).tolist()
    balanced = [sk.balanced_accuracy_score(y[:, c], said[:, c]) for c in range(3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(balanced))


def test_calibration_error_by_hand() -> None:
    # confidences .95 (right), .95 (wrong), .65 (right): bins 9 and 6
    p = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65]])
    found = classification_metrics(p, np.array([0, 1, 1]), ("a", "b"), "multiclass")
    assert found["ece"] == pytest.approx((2 * abs(0.5 - 0.95) + abs(1 - 0.65)) / 3)
    sure = classification_metrics(np.eye(2), np.array([0, 1]), ("a", "b"), "multiclass")
    assert sure["ece"] == 0


@pytest.mark.parametrize(
    ("p", "y", "task", "undefined"),
    [
        (np.full((3, 2), 0.5), np.zeros(3, int), "multiclass", {"sensitivity"}),
        (np.full((3, 2), 0.5), np.ones(3, int), "multiclass", {"specificity"}),
        (np.full((3, 3), 1 / 3), np.array([0, 2, 2]), "multiclass", {"sensitivity", "f1"}),
        (np.full((2, 1), 0.9), np.ones((2, 1), np.float32), "multilabel", {"specificity"}),
    ],
)
def test_a_missing_class_gives_none_and_a_note(
    p: Array, y: Array, task: TaskKind, undefined: set[str]
) -> None:
    names = tuple("abc")[: p.shape[1]]
    found = classification_metrics(p, y, names, task)
    assert {name for name in SCORES if found[name] is None} == undefined | {
        "auc",
        "average_precision",
        "balanced_accuracy",
    }
    assert len(cast("list[str]", found["notes"])) == 1
    complete = classification_metrics(*planted(9, 2, 0), ("a", "b"), "multiclass")
    assert found.keys() == complete.keys()
    json.dumps(found, allow_nan=False)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(InputError, match=r"don't fit 2 classes"):
        classification_metrics(np.zeros((0, 2)), np.zeros(0, int), ("a", "b"), "multiclass")
    with pytest.raises(InputError, match=r"\(3, 2\) and targets \(4,\)"):
        classification_metrics(np.ones((3, 2)), np.zeros(4, int), ("a", "b"), "multiclass")
    with pytest.raises(InputError, match="not finite"):
        classification_metrics(np.full((1, 2), np.nan), np.zeros(1, int), "ab", "multiclass")


@pytest.mark.parametrize("seed", range(4))
def test_threshold_is_the_best_there_is(seed: int) -> None:
    p, y = planted(40, 2, seed)
    p_positive = p[:, 1].astype(np.float32)
    fpr, tpr, _ = sk.roc_curve(y, p_positive)
    cut = choose_threshold(p_positive, y, "youden")
    assert cut is not None
    said = p_positive >= cut
    assert said[y == 1].mean() - said[y == 0].mean() == pytest.approx((tpr - fpr).max())
    cut = choose_threshold(p_positive, y, "f1")
    assert cut is not None
    best = max(sk.f1_score(y, p_positive >= level) for level in np.unique(p_positive))
    assert sk.f1_score(y, p_positive >= cut) == pytest.approx(best)


def test_threshold_lies_between_and_near_a_half() -> None:
    p = np.array([0.1, 0.2, 0.6, 0.9])
    assert choose_threshold(p, np.array([0, 0, 1, 1]), "youden") == pytest.approx(0.4)
    # cutting at 0.15 and at 0.75 is equally good
    assert choose_threshold(p, np.array([0, 1, 0, 1]), "youden") == pytest.approx(0.75)
    assert choose_threshold(p, np.array([0, 1, 0, 1]), "argmax") == 0.5
    assert choose_threshold(p, np.zeros(4, int), "f1") is None


def test_intervals_resample_patients_not_bags() -> None:
    rng = np.random.default_rng(0)
    patient_truth = np.arange(20) % 2
    of_bag = np.repeat(np.arange(20), 10)
    y = patient_truth[of_bag]
    score = (0.3 * y + rng.random(20)[of_bag]).astype(float)  # a patient's bags are all alike

    def auc(bags: npt.NDArray[np.int64]) -> dict[str, float | None]:
        truth = y[bags] == 1
        both = truth.any() and not truth.all()
        return {"auc": roc_auc(score[bags], truth) if both else None}

    patients = [f"p{k}" for k in of_bag]
    grouped = bootstrap_intervals(auc, patients, n=300, seed=1)["auc"]
    single = bootstrap_intervals(auc, [f"b{k}" for k in range(200)], n=300, seed=1)["auc"]
    assert grouped == bootstrap_intervals(auc, patients, n=300, seed=1)["auc"]
    assert grouped != bootstrap_intervals(auc, patients, n=300, seed=2)["auc"]
    assert grouped.low is not None
    assert grouped.high is not None
    assert single.low is not None
    assert single.high is not None
    point = auc(np.arange(200))["auc"]
    assert point is not None
    assert grouped.low < point < grouped.high
    assert grouped.high - grouped.low > 2 * (single.high - single.low)


def test_resamples_without_a_class_are_counted() -> None:
    p, y = planted(6, 2, 0)
    y = np.array([1, 0, 0, 0, 0, 0])

    def score(bags: npt.NDArray[np.int64]) -> dict[str, float | None]:
        return scores_of(classification_metrics(p[bags], y[bags], ("a", "b"), "multiclass"))

    found = bootstrap_intervals(score, [str(k) for k in range(6)], n=400, seed=0)
    expected = 400 * (5 / 6) ** 6  # the only bag of class 1 is not drawn
    assert found["auc"].skipped == pytest.approx(expected, rel=0.3)
    assert found["auc"].resamples + found["auc"].skipped == 400
    assert found["accuracy"].skipped == 0
    y[:] = 0
    assert bootstrap_intervals(score, list("aabbcc"), n=5)["auc"].low is None
