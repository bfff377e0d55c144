from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from jobs.evaluation.score_histogram import ScoreHistogram

seeds = st.integers(0, 2**32 - 1)


def counted(*parts: tuple[np.ndarray, np.ndarray]) -> ScoreHistogram:
    histogram = ScoreHistogram()
    for score, truth in parts:
        histogram.add(score, truth)
    return histogram


@settings(deadline=None, max_examples=25)
@given(seeds, st.sampled_from([1e-6, 0.03, 1.0, 1e4]), st.sampled_from([0.0, 1.0, -40.0]))
def test_areas_are_exact_to_the_bin(seed: int, spread: float, shift: float) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.random(300) < 0.3
    truth[:2] = False, True
    score = (shift + spread * (generator.normal(size=300) + truth)).astype(np.float32)
    found = counted((score, truth))
    assert found.roc_auc is not None
    assert abs(found.roc_auc - roc_auc_score(truth, score)) <= found.resolution + 1e-12
    assert (found.n_positive, found.n_negative) == (truth.sum(), (~truth).sum())


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_half_precision_is_exact_and_so_are_ties(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.random(400) < 0.4
    truth[:2] = False, True
    score = np.round(generator.normal(size=400) + truth, 1).astype(np.float16)  # -0 and 0 too
    found = counted((score, truth))
    assert found.roc_auc == pytest.approx(roc_auc_score(truth, score), abs=1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(truth, score))


def test_chunks_and_slides_add_up() -> None:
    generator = np.random.default_rng(0)
    score = generator.normal(size=(50, 40)).astype(np.float32)
    score[generator.random(score.shape) < 0.2] = np.nan
    score[0, 0] = np.inf
    truth = generator.random(score.shape) < 0.5
    whole = counted((score, truth))
    rows = counted(*((score[i : i + 7], truth[i : i + 7]) for i in range(0, 50, 7)))
    both = counted((score[:20], truth[:20]))
    both.add_counts(counted((score[20:], truth[20:])))
    for other in (rows, both):
        np.testing.assert_array_equal(other.counts, whole.counts)
        np.testing.assert_array_equal(other.unscored, whole.unscored)
    known = np.isfinite(score)
    assert whole.unscored.tolist() == [(~known & ~truth).sum(), (~known & truth).sum()]
    filled = np.where(known, score, -100)
    assert whole.roc_auc_with_background == pytest.approx(
        roc_auc_score(truth.ravel(), filled.ravel()), abs=whole.resolution
    )


def test_one_kind_alone_has_no_area() -> None:
    score = np.array([0.1, 0.2, np.nan], np.float32)
    found = counted((score, np.array([False, False, True])))
    assert found.roc_auc is None
    assert found.average_precision is None
    assert found.resolution == 0
    assert found.roc_auc_with_background == 0.0  # the only positive pixel has no score
    assert ScoreHistogram().roc_auc_with_background is None


def test_many_pixels_do_not_overflow() -> None:
    found = counted((np.array([0.0, 1.0]), np.array([False, True])))
    found.counts[:] *= 10**11
    assert found.roc_auc == 1.0
    assert found.average_precision == 1.0
