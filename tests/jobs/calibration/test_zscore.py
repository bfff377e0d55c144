"""z-scores of a slide's tiles, against the textbook and at the edges."""

from __future__ import annotations

import math
import statistics

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jobs.calibration.zscore import TINY_TILES, ZScore, zscores

any_float32 = hnp.arrays(
    np.float32, st.integers(0, 40), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)
)  # fmt: skip
plain = hnp.arrays(np.float32, st.integers(2, 40), elements=st.integers(-50, 50).map(float))
both = st.sampled_from(["mean-std", "median-mad"])


@settings(deadline=None)
@given(any_float32, both)
def test_finite_where_there_is_a_score(raw: npt.NDArray[np.float32], how: ZScore) -> None:
    found = zscores(raw, how)
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(np.isfinite(found.values), np.isfinite(raw))
    assert found.n_scored + found.n_without_score == len(raw)
    known = raw[np.isfinite(raw)]
    assert ("no-score" in found.flags) == (known.size == 0)
    assert ("constant" in found.flags) == (known.size > 0 and known.min() == known.max())
    assert ("tiny" in found.flags) == (0 < known.size < TINY_TILES)
    order = np.argsort(known, kind="stable")
    assert (np.diff(found.values[np.isfinite(raw)][order]) >= 0).all()


@settings(deadline=None)
@given(plain, both)
def test_as_in_the_textbook(raw: npt.NDArray[np.float32], how: ZScore) -> None:
    values = [float(value) for value in raw]
    if how == "mean-std":
        center, scale = statistics.fmean(values), statistics.pstdev(values)
    else:
        center = statistics.median(values)
        deviations = [abs(value - center) for value in values]
        scale = 1.4826 * statistics.median(deviations)
        if scale == 0:
            scale = 1.2533 * statistics.fmean(deviations)
    expected = [(value - center) / scale if scale else 0.0 for value in values]
    np.testing.assert_allclose(zscores(raw, how).values, expected, rtol=1e-5, atol=1e-5)


@settings(deadline=None)
@given(plain, both, st.integers(-9, 9), st.sampled_from([0.25, 3.0, 1024.0]))
def test_baseline_and_contrast_of_a_slide_do_not_matter(
    raw: npt.NDArray[np.float32], how: ZScore, shift: int, factor: float
) -> None:
    same, moved = zscores(raw, how), zscores(raw * np.float32(factor) + np.float32(shift), how)
    np.testing.assert_allclose(moved.values, same.values, atol=1e-3)
    assert moved.flags == same.flags


@pytest.mark.parametrize("how", ["mean-std", "median-mad"])
@pytest.mark.parametrize("value", [0.1, 1e-30, -3e38, 7.0])
def test_equal_scores_are_zero_even_where_their_mean_is_rounded(how: ZScore, value: float) -> None:
    found = zscores(np.full(1013, value, np.float32), how)
    assert not found.values.any()
    assert (found.flags, found.scale) == (("constant",), 0.0)


def test_one_tile() -> None:
    found = zscores(np.array([0.7], np.float32))
    assert found.values.tolist() == [0.0]
    assert found.flags == ("constant", "tiny")


def test_no_score_at_all() -> None:
    for raw in (np.full(3, np.nan, np.float32), np.empty(0, np.float32)):
        found = zscores(raw)
        assert found.flags == ("no-score",)
        assert found.center is None


def test_a_large_lesion_moves_the_mean_and_not_the_median() -> None:
    raw = np.concatenate([np.linspace(-1, 1, 60), np.linspace(9, 11, 40)]).astype(np.float32)
    assert zscores(raw, "mean-std").values.max() < 1.5
    assert zscores(raw, "median-mad").values.max() > 3


def test_most_tiles_share_one_score() -> None:
    raw = np.zeros(30, np.float32)
    raw[:3] = [1.0, 2.0, 3.0]
    found = zscores(raw, "median-mad")
    assert found.flags == ("mad-zero",)
    assert found.scale == pytest.approx(1.2533 * 6 / 30)
    assert found.values.max() == pytest.approx(3 / (1.2533 * 0.2))


def test_an_outlier_over_a_tiny_spread_stays_finite() -> None:
    raw = np.array([1e-44, 2e-44, 3e-44, 3e38], np.float32)
    assert zscores(raw, "median-mad").values[-1] == np.finfo(np.float32).max
    assert math.isclose(zscores(raw, "mean-std").values[-1], math.sqrt(3), rel_tol=1e-6)
