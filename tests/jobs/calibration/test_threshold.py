"""Thresholds, against trying them one by one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.calibration.oracle import best_threshold
from jobs.calibration.threshold import (
    Z_THRESHOLDS,
    Metric,
    above,
    choose_threshold,
    every_threshold,
    hardly_better_than_all,
)
from models.overlap import Overlap

Scored = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]


@st.composite
def scored(draw: st.DrawFn) -> Scored:
    """Scores with ties, gaps and NaN, and their truth."""
    value = st.one_of(
        st.integers(-5, 7).map(float), st.floats(-4, 6, width=32), st.just(float("nan"))
    )
    pairs = draw(st.lists(st.tuples(value, st.booleans()), min_size=1, max_size=40))
    return np.array([v for v, _ in pairs], np.float32), np.array([t for _, t in pairs])


metrics = st.sampled_from(["iou", "f1", "youden"])


def quality(metric: Metric, flagged: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """The metric in plain words; 0 where it isn't defined."""
    pairs = list(zip(flagged.tolist(), truth.tolist(), strict=True))
    tp, fp = pairs.count((True, True)), pairs.count((True, False))
    n_true, n_false = int(truth.sum()), int((~truth).sum())
    if metric == "iou":
        return tp / max(n_true + fp, 1)
    if metric == "f1":
        return 2 * tp / max(n_true + tp + fp, 1)
    return tp / max(n_true, 1) - fp / max(n_false, 1)


@settings(deadline=None)
@example(
    (np.array([0, 0, 0, 0, -1, 1], np.float32), np.array([0, 0, 1, 1, 0, 1], bool)), "youden"
)  # equal but for the last bit
@given(scored(), metrics)
def test_none_is_better_and_none_higher_as_good(data: Scored, metric: Metric) -> None:
    score, truth = data
    found = choose_threshold(score, truth, metric)
    tried = {t: quality(metric, score.astype(float) > t, truth) for t in Z_THRESHOLDS.tolist()}
    best = max(tried.values())
    assert found.value == max(t for t, q in tried.items() if q >= best - 1e-12)
    assert found.at_end == (found.value in (-3.0, 5.0))
    flagged = above(score, found.value)
    assert (found.overlap.tp, found.overlap.fp) == (
        int((flagged & truth).sum()),
        int((flagged & ~truth).sum()),
    )
    assert found.overlap.tp + found.overlap.fn == truth.sum()  # a tile without a score is missed


@settings(deadline=None)
@given(scored())
def test_iou_and_f1_choose_the_same_threshold(data: Scored) -> None:
    score, truth = data
    assert choose_threshold(score, truth, "iou") == choose_threshold(score, truth, "f1")


@settings(deadline=None)
@given(scored())
def test_every_way_to_cut_is_tried(data: Scored) -> None:
    score = data[0]
    thresholds = every_threshold(score)
    assert (np.diff(thresholds) > 0).all()
    known = score[np.isfinite(score)]
    cuts = {int((known.astype(float) > t).sum()) for t in thresholds}
    assert cuts == {int((known >= level).sum()) for level in known} | {0}


def test_scores_are_compared_as_when_the_threshold_was_chosen() -> None:
    score = np.array([0.1], np.float32)  # 0.1000000015 in double precision
    assert above(score, 0.1).tolist() == [True]
    assert above(np.array([np.nan, np.inf, -np.inf], np.float32), 0.0).tolist() == [
        False,
        True,
        False,
    ]


@settings(deadline=None)
@given(scored(), metrics)
def test_no_threshold_gives_a_better_mask_than_the_oracle(data: Scored, metric: Metric) -> None:
    score, truth = data

    def clean(flagged: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Flags whose neighbours on both sides are flagged, too: good ones may turn bad by it."""
        padded = np.pad(flagged, 1)
        return padded[:-2] & padded[1:-1] & padded[2:]

    found = best_threshold(score, truth, metric, clean)
    masks = {t: clean(score.astype(float) > t) for t in Z_THRESHOLDS.tolist()}
    tried = {t: quality(metric, mask, truth) for t, mask in masks.items()}
    best = max(tried.values())
    assert found.value == max(t for t, q in tried.items() if q >= best - 1e-12)
    assert found.overlap.tp == (masks[found.value] & truth).sum()


def test_a_slide_without_positives_is_best_left_alone() -> None:
    score, truth = np.array([1.0, 2.0, 9.0], np.float32), np.zeros(3, bool)
    assert best_threshold(score[:2], truth[:2], "iou", lambda flagged: flagged).value == 5.0


def test_a_threshold_that_gains_nothing_is_told_of() -> None:
    floods = Overlap(104, 475, 11, 76)  # of the cohort's validation tiles: 115 of 666 are tumour
    said = hardly_better_than_all(floods, "iou")
    assert said is not None
    assert "IoU is 0.176, that of flagging every tile 0.173" in said
    assert hardly_better_than_all(floods, "f1") is not None
    assert hardly_better_than_all(floods, "youden") is not None
    for metric in ("iou", "f1", "youden"):
        assert hardly_better_than_all(Overlap(60, 40, 55, 511), metric) is None
