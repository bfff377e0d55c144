"""Which bags an epoch trains on, and which of their tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.bag_source import BagSource


class Draw(NamedTuple):
    """A training bag that was drawn.

    Attributes
    ----------
    bag
        Its number.
    tiles
        As in ``BagSource.load``.
    """

    bag: int
    tiles: npt.NDArray[np.int64] | None


def draw_bags(
    source: BagSource,
    rng: np.random.Generator,
    *,
    balanced: bool,
    bag_size: int | None,
    batch_size: int,
) -> Iterator[list[Draw]]:
    """Yield an epoch's batches: as many draws as there are bags.

    Parameters
    ----------
    source
        The training bags.
    rng
        The epoch's.
    balanced
        Draw with replacement by ``sampling_weights``; else every bag once, in random order.
    bag_size
        Tiles that are drawn of a bag that has more, without replacement; None takes all.
    batch_size
        Bags a batch; the last one may have fewer.
    """
    n = len(source.ids)
    weights = sampling_weights(source.targets) if balanced else None
    order = rng.choice(n, n, replace=balanced, p=weights)
    for start in range(0, n, batch_size):
        bags = order[start : start + batch_size].tolist()
        yield [Draw(bag, _sub_bag(int(source.lengths[bag]), bag_size, rng)) for bag in bags]


def _sub_bag(
    n_tiles: int, bag_size: int | None, rng: np.random.Generator
) -> npt.NDArray[np.int64] | None:
    if bag_size is None or bag_size >= n_tiles:
        return None
    return np.sort(rng.choice(n_tiles, bag_size, replace=False, shuffle=False))


def sampling_weights(
    targets: npt.NDArray[np.int64] | npt.NDArray[np.float32],
) -> npt.NDArray[np.float64]:
    """Return the probability of each bag to be drawn, inversely to how frequent its class is.

    Of a multi-label task the mean over labels, each with two classes: bags with it, bags without.

    Parameters
    ----------
    targets
        As in ``BagSource``.
    """
    weights = np.zeros(len(targets))
    for column in targets.reshape(len(targets), -1).T:
        _, of_bag, counts = np.unique(column, return_inverse=True, return_counts=True)
        weights += 1 / counts[of_bag]
    probability: npt.NDArray[np.float64] = weights / weights.sum()
    return probability
