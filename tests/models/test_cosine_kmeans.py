from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.cosine_kmeans import cosine_kmeans, unit_rows
from store_schema.errors import InputError


def bundles(sizes: list[int], dim: int = 16, spread: float = 0.05) -> npt.NDArray[np.float32]:
    """Return vectors of any length around as many directions as there are sizes."""
    generator = np.random.default_rng(0)
    directions = np.linalg.qr(generator.normal(size=(dim, len(sizes))))[0].T
    rows = np.repeat(directions, sizes, axis=0) + spread * generator.normal(size=(sum(sizes), dim))
    lengths = generator.uniform(0.1, 50, size=(len(rows), 1))
    return (rows * lengths).astype(np.float32)


def test_bundles_are_found_whatever_the_lengths() -> None:
    features = bundles([30, 5, 12])
    clusters = cosine_kmeans(features, 3)
    assert clusters.sizes.tolist() == [30, 12, 5]  # the largest first
    for start, stop in ((0, 30), (30, 35), (35, 47)):
        assert len(set(clusters.labels[start:stop].tolist())) == 1
    np.testing.assert_allclose(np.linalg.norm(clusters.centres, axis=1), 1, atol=1e-6)
    # a centre is the direction of the mean of its unit vectors
    mean = unit_rows(features)[:30].mean(axis=0)
    np.testing.assert_allclose(clusters.centres[0], mean / np.linalg.norm(mean), atol=1e-6)


def test_it_is_as_good_as_the_best_of_all_partitions() -> None:
    points = unit_rows(np.random.default_rng(3).normal(size=(8, 3)))
    best = min(
        sum(
            (group := np.array(labels) == c).sum() - np.linalg.norm(points[group].sum(axis=0))
            for c in (0, 1)
        )
        for labels in itertools.product((0, 1), repeat=8)
    )
    assert cosine_kmeans(points, 2, n_init=50).inertia == pytest.approx(best)


def test_the_seed_decides() -> None:
    features = np.random.default_rng(1).normal(size=(200, 8))
    first, again = (cosine_kmeans(features, 5, seed=4, n_init=2) for _ in range(2))
    np.testing.assert_array_equal(first.centres, again.centres)
    np.testing.assert_array_equal(first.labels, again.labels)
    starts = {cosine_kmeans(features, 5, seed=s, n_init=1).inertia for s in range(6)}
    assert len(starts) > 1
    assert (
        cosine_kmeans(features, 5, n_init=20).inertia
        <= cosine_kmeans(features, 5, n_init=1).inertia
    )


def test_fewer_directions_than_clusters() -> None:
    two = np.repeat(np.eye(2, 4), 5, axis=0) * np.arange(1, 11)[:, None]
    assert cosine_kmeans(two, 2).sizes.tolist() == [5, 5]
    with pytest.raises(
        InputError, match="10 feature vectors point in 2 different directions, and 3"
    ):
        cosine_kmeans(two.astype(np.float32) / 3, 3)
    with pytest.raises(InputError, match="no feature vectors"):
        cosine_kmeans(np.empty((0, 4)), 1)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_direction_is_refused(value: float) -> None:
    features = np.ones((4, 3))
    features[2] = value
    with pytest.raises(InputError, match=r"1 of 4 feature vectors \(the first is number 2\)"):
        cosine_kmeans(features, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(6, 25), st.integers(1, 5), st.integers(0, 99))
def test_every_cluster_has_points_and_every_point_its_nearest_centre(
    k: int, n: int, dim: int, seed: int
) -> None:
    features = np.random.default_rng(seed).normal(size=(n, dim))
    if (
        len(np.unique(unit_rows(features).round(9), axis=0)) < k
    ):  # in one dimension there are two directions
        return
    clusters = cosine_kmeans(features, k, seed=seed, n_init=2)
    assert clusters.sizes.min() >= 1
    assert np.all(np.diff(clusters.sizes) <= 0)
    cosine = unit_rows(features) @ clusters.centres.T.astype(np.float64)
    own = cosine[np.arange(n), clusters.labels]
    assert clusters.inertia == pytest.approx(float((1 - own).sum()), abs=1e-5)
    np.testing.assert_allclose(own, cosine.max(axis=1), atol=1e-5)
