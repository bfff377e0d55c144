"""Counts of decisions against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.overlap import METRICS, Overlap, sweep


def test_counts_and_ratios() -> None:
    predicted = np.array([1, 1, 1, 0, 0, 0, 0], dtype=bool)
    truth = np.array([1, 0, 0, 1, 0, 0, 0], dtype=bool)
    counts = Overlap.of(predicted, truth)
    assert counts == Overlap(1, 2, 1, 3)
    assert (counts.iou, counts.dice) == (0.25, 0.4)
    assert (counts.precision, counts.recall, counts.specificity) == (1 / 3, 0.5, 0.6)
    assert counts.youden == pytest.approx(0.1)
    assert Overlap(0, 1, 0, 1).youden is None  # nothing is positive
    assert counts + counts == Overlap(2, 4, 2, 6)
    nothing = Overlap.of(~truth & truth, ~truth & truth)
    assert (nothing.iou, nothing.dice, nothing.precision, nothing.recall) == (None,) * 4


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30))
def test_a_sweep_counts_as_one_by_one(pairs: list[tuple[int, bool]]) -> None:
    score = np.array([value for value, _ in pairs], dtype=np.float32)
    score[score == 3] = np.nan
    truth = np.array([mark for _, mark in pairs])
    thresholds = np.linspace(-3, 3, 13)
    counts = sweep(score, truth, thresholds)
    for i, threshold in enumerate(thresholds):
        assert counts[i] == Overlap.of(score > threshold, truth)
    for metric, formula in METRICS.items():
        values = formula(counts)
        best = counts.best(metric)
        assert values[best] == values.max()
        assert (values[best + 1 :] < values[best]).all()


def test_ties_flag_least() -> None:
    counts = sweep(np.array([0.0, 1.0]), np.array([False, True]), np.array([0.0, 0.5, 0.9, 1.0]))
    assert counts.best("iou") == 2
    with pytest.raises(KeyError):
        counts.best("accuracy")
