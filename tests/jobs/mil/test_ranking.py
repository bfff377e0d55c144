from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.mil.ranking import (
    attention_score,
    feature_norms,
    how_many,
    top_k,
    unit_range,
    weighted,
)
from store_schema.errors import InputError


def test_norms() -> None:
    features = np.array([[3, 4], [0, 0], [1000, 1000]], np.float16)
    np.testing.assert_allclose(feature_norms(features), [5, 0, 2**0.5 * 1000], rtol=1e-6)
    assert feature_norms(features).dtype == np.float32  # 1000² overflows in float16


def test_the_greatest_attention_of_any_class_counts() -> None:
    np.testing.assert_array_equal(
        attention_score(np.array([[0.1, 0.9], [0.8, 0.1]])), np.array([0.9, 0.8], np.float32)
    )
    np.testing.assert_array_equal(
        attention_score(np.array([0.1, 0.9])), np.array([0.1, 0.9], np.float32)
    )


def test_unit_range() -> None:
    np.testing.assert_allclose(unit_range(np.array([2, 4, 3], np.float32)), [0, 1, 0.5])
    np.testing.assert_array_equal(unit_range(np.array([7, 7], np.float32)), [0, 0])
    assert unit_range(np.zeros(0, np.float32)).size == 0
    close = np.array([0.1, np.nextafter(np.float32(0.1), np.float32(1))], np.float32)
    np.testing.assert_array_equal(unit_range(close), [0, 1])


def test_weighted() -> None:
    attention, norms = np.array([0.2, 0.0, 0.1], np.float32), np.array([5, 15, 10], np.float32)
    np.testing.assert_allclose(weighted(attention, norms, 0.7), [0.7, 0.3, 0.5], rtol=1e-6)
    # a constant has no say
    np.testing.assert_allclose(weighted(np.full(3, 0.3, np.float32), norms, 0.7), [0, 0.3, 0.15])


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), max_size=40), st.integers(1, 50))
def test_top_k(values: list[float], k: int) -> None:
    scores = np.array(values, np.float32)
    chosen = top_k(scores, k)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    np.testing.assert_array_equal(chosen, expected)
    assert chosen.dtype == np.int32


@pytest.mark.parametrize(
    ("n_tiles", "k", "fraction", "expected"),
    [
        (10, 3, None, 3),
        (10, 30, None, 10),
        (0, 3, None, 0),
        (100, None, 0.07, 7),
        (10, None, 0.01, 1),
        (10, None, 1e-300, 1),
        (10, None, 1.0, 10),
        (0, None, 0.5, 0),
    ],
)
def test_how_many(n_tiles: int, k: int | None, fraction: float | None, expected: int) -> None:
    assert how_many(n_tiles, k, fraction) == expected


@pytest.mark.parametrize(("k", "fraction"), [(None, None), (3, 0.5), (0, None), (None, 1.5)])
def test_how_many_makes_no_sense(k: int | None, fraction: float | None) -> None:
    with pytest.raises(InputError):
        how_many(10, k, fraction)
