"""k-means by cosine: clusters of directions, whose centres have unit length.

Spherical k-means (Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", Machine
Learning 42, 2001), started by k-means++ (Arthur and Vassilvitskii, SODA 2007) on the cosine distance, which for unit
vectors is half the squared Euclidean one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from store_schema.errors import InputError

_MAX_ROUNDS = 300
# cosine distances below this are rounding: of float32 vectors that are multiples of each other they reach 1e-14
_SAME = 1e-12

_Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CosineClusters:
    """What vectors fall into.

    Attributes
    ----------
    centres
        float32 (k, d), of unit length, the largest cluster first.
    labels
        int32 (n,), the cluster of each vector.
    inertia
        Sum of the vectors' cosine distances, 1 - cos, to their centres.
    """

    centres: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    inertia: float

    @property
    def sizes(self) -> npt.NDArray[np.int32]:
        """int32 (k,), vectors of each cluster."""
        return np.bincount(self.labels, minlength=len(self.centres)).astype(np.int32)


def unit_rows(features: npt.NDArray[np.floating]) -> _Matrix:
    """Return vectors at unit length, float64 (n, d).

    Raises
    ------
    InputError
        One is zero or not finite, and has no direction.
    """
    rows: _Matrix = features.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)))
    if bad.size:
        raise InputError(
            f"{bad.size} of {len(rows)} feature vectors (the first is number {bad[0]}) are zero or not finite and have "
            "no direction: encode the tiles again"
        )
    rows /= lengths
    return rows


def cosine_kmeans(
    features: npt.NDArray[np.floating], k: int, *, seed: int = 0, n_init: int = 10
) -> CosineClusters:
    """Cluster vectors by their direction.

    Parameters
    ----------
    features
        (n, d), of any length but 0.
    k
        Clusters.
    seed
        Of the starts: the same seed gives the same clusters.
    n_init
        How many starts; the best one counts.

    Raises
    ------
    InputError
        There are fewer directions than k, or a vector has none.
    """
    if k < 1 or n_init < 1:
        raise ValueError(f"{k} clusters of {n_init} starts make no sense")
    points = unit_rows(features)
    generator = np.random.default_rng(seed)
    best = min(
        (_lloyd(points, _plus_plus(points, k, generator)) for _ in range(n_init)),
        key=lambda found: found[2],
    )
    return _in_order(*best)


def _plus_plus(points: _Matrix, k: int, generator: np.random.Generator) -> _Matrix:
    """Choose k points far from each other: the next with a chance in proportion to its distance."""
    if not len(points):
        raise InputError(f"there are no feature vectors to make {k} clusters of")
    chosen = [int(generator.integers(len(points)))]
    distance = _distance(points, points[chosen])
    while len(chosen) < k:
        weight = np.where(distance > _SAME, distance, 0.0)
        if not weight.any():
            raise InputError(
                f"{len(points)} feature vectors point in {len(chosen)} different directions, and {k} clusters are "
                f"asked for: ask for {len(chosen)} at most, or take more tiles"
            )
        chosen.append(int(generator.choice(len(points), p=weight / weight.sum())))
        distance = np.minimum(distance, _distance(points, points[chosen[-1:]]))
    return points[chosen]


def _distance(points: _Matrix, centres: _Matrix) -> npt.NDArray[np.float64]:
    """Return the cosine distance of each point to its nearest centre, (n,)."""
    nearest: npt.NDArray[np.float64] = 1.0 - (points @ centres.T).max(axis=1)
    return np.maximum(nearest, 0.0)


def _lloyd(points: _Matrix, centres: _Matrix) -> tuple[_Matrix, npt.NDArray[np.intp], float]:
    labels = np.full(len(points), -1, np.intp)
    for _ in range(_MAX_ROUNDS):
        cosine = points @ centres.T
        nearest = cosine.argmax(axis=1)
        own = cosine[np.arange(len(points)), nearest]
        for lost in np.setdiff1d(np.arange(len(centres)), nearest):
            # a cluster that lost all of its points gets the one that is worst off, of those that aren't alone
            alone = np.bincount(nearest, minlength=len(centres))[nearest] == 1
            worst = int(np.where(alone, np.inf, own).argmin())
            nearest[worst], own[worst] = lost, 1.0
        if np.array_equal(nearest, labels):
            break
        labels = nearest
        centres = _means(points, labels, centres)
    own = np.einsum("ij,ij->i", points, centres[labels])
    return centres, labels, float(np.maximum(1.0 - own, 0.0).sum())


def _means(points: _Matrix, labels: npt.NDArray[np.intp], centres: _Matrix) -> _Matrix:
    """Return the unit vectors in the direction of the clusters' means."""
    sums = np.zeros_like(centres)
    np.add.at(sums, labels, points)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    # points that cancel each other out have no mean direction: the centre stays where it was
    return np.where(lengths > _SAME, sums / np.maximum(lengths, _SAME), centres)


def _in_order(centres: _Matrix, labels: npt.NDArray[np.intp], inertia: float) -> CosineClusters:
    """Put the largest cluster first; of equal ones that of the earlier vector."""
    sizes = np.bincount(labels, minlength=len(centres))
    first = [int(np.flatnonzero(labels == cluster)[0]) for cluster in range(len(centres))]
    order = sorted(range(len(centres)), key=lambda c: (-sizes[c], first[c]))
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return CosineClusters(centres[order].astype(np.float32), place[labels], inertia)
